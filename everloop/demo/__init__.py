"""The flights demo: one whole turn of the loop, and a year of it, on real data."""
