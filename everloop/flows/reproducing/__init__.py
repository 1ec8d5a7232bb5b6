"""What reproduction needs: the recorded environment again, and what was not as it is recorded."""
