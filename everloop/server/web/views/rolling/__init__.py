"""What an endpoint's page shows of its rollout."""
