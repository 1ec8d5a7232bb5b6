"""What the gateway says over HTTP, a module for each protocol."""
