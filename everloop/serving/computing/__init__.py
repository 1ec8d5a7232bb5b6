"""What workers get of a compute profile."""
