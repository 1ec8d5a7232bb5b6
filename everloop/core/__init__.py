"""Values and pure rules; no input or output, no heavy import."""
