"""Frames and backfills over Parquet files: DuckDB reads, NumPy answers in integers."""
