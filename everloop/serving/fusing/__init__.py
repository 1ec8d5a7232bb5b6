"""A model and the transforms of its feature service in one worker, and how what they made travels."""
