"""Rolling out: the state machine, what gateways were observed to do, and what the routing table then says."""
