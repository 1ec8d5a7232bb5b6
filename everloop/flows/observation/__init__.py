"""What is seen of a step while it runs: what it prints, and what its processes and its machine use."""
