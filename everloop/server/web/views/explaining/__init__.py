"""Pages that explain: why versions differ, what a metric lost by."""
