"""Features: one definition, exactly equal in batch and online; `docs/features.md` states the rules.

`definitions` loads nothing heavy. `online`, `lmdb` and what they import load NumPy and LMDB only, so that the gateway
can use them. `history` and `scan` load DuckDB, Arrow and Polars.
"""
