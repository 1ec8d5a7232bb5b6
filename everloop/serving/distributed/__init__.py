"""Models on a Ray cluster: the same parts, asked by the same gateway, as deployments of Ray Serve."""
