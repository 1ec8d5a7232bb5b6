"""A subject goes from the prediction log: segments, rows and labels."""
