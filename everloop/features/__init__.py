"""Features: one definition, exactly equal in batch and online.

`definitions` is pure. `online`, `lmdb` and what they import load numpy, msgspec-free byte packing and LMDB
only, so that the gateway can use them; `history` and `materialize` load DuckDB and Polars.
"""
