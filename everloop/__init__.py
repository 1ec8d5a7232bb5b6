"""Everloop: the machine-learning lifecycle as one versioned, audited loop."""

__version__ = "0.1.0"
