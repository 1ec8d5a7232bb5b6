"""The command line: argument parsing over the SDK, one module a noun."""

from everloop.cli.main import main

__all__ = ["main"]
