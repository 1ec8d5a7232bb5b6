"""`python -m everloop` is the same as `everloop`."""

import sys

from everloop.cli import main

sys.exit(main())
