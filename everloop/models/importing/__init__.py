"""Bringing experiments over from other trackers: readers of each format, one value for all, one writer."""
