"""How a gateway tells what it counts."""
