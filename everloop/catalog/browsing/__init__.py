"""Reads for people who look through many rows: which keys there are and how often, chosen cells of some runs."""
