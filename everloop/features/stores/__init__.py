"""Online stores, where packed states lie: LMDB in a folder, or a Redis server."""
