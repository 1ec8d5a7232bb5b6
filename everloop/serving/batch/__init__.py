"""Scoring datasets with the graph and the revision that answer callers."""
