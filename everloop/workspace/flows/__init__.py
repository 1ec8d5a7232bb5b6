"""Runs of flows in this workspace."""
