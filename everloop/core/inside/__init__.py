"""What code inside a step may ask of whoever runs it."""
