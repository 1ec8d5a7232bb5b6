"""How outputs were made: what recipes consist of, and what steps read that their recipe does not hold."""
