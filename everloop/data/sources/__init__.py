"""Where rows come from: one module an origin, each a `core.ports.Source`."""
