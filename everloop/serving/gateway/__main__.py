"""`python -m everloop.serving.gateway`."""

import sys
from importlib import import_module

from everloop.serving.gateway.starting import spare

spare.begin(sys.argv)
sys.exit(import_module("everloop.serving.gateway.process").main())
