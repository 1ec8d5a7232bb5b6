"""What went wrong with a feature view: look-ups without a good answer, events that it refused."""
