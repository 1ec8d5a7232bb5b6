"""What an entity keeps of its facts, and how values are made of it: integers only, NumPy and nothing heavier."""
