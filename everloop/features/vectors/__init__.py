"""Vectors: a user's encoder as a step, its vectors as features and as an index of nearest neighbours.

`definitions` is pure. `encoding` runs in a step. `nearest` is NumPy alone.
"""
