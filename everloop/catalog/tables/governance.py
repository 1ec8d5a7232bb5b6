"""Tables of changes, check results and access."""
