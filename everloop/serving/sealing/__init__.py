"""That workers load what was signed."""
