"""Contracts of versions: expectations that a table alone cannot answer, and how a version is judged by all of them."""
