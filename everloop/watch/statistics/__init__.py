"""Statistics that know nothing of monitors: two-sample tests on counts, estimates from scores."""
