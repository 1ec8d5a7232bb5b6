"""Models that answer inside the gateway, without a hop to a worker."""
