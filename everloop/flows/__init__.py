"""Flows: assets and steps as values, their plan, identity, engine and executors."""
