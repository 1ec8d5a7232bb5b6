"""How model workers are started."""
