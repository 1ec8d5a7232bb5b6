"""Online stores: where packed states lie."""
