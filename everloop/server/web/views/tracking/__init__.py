"""Pages of tracking: the table of runs, one run, its files and code, registered models."""
