"""Live feeds: events that arrive become versions of a dataset every few seconds, each of them exactly once.

`origins` are what an author writes, `inbox` is where a push waits, `consuming` reads a feed and commits. The server
loads `origins` and `inbox` only: no engine.
"""
