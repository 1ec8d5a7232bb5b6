"""What files hold: one module a format, each gives record batches of a local file."""
