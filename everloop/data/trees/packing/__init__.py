"""Packs: many files in one object; big files in pieces that are cut by content."""
