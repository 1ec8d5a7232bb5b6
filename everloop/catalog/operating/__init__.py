"""Rows of what runs: predictions, labels, rollouts, evaluations, alarms."""
