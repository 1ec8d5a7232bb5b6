"""Several models in one worker process."""
