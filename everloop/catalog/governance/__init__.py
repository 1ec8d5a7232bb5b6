"""Governance: environments, changes with approvals and comments, check results, and access."""
