"""Conformance suites for the ports: what built-ins and third parties' adapters both must pass."""
