"""The composition root: opens store and catalog, wires the ports, holds actor and clock."""
