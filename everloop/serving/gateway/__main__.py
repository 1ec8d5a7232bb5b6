"""`python -m everloop.serving.gateway`."""

import sys

from everloop.serving.gateway.process import main

sys.exit(main())
