"""Models: definitions, packaging in MLflow's format, a light predictor, evaluation, the registry."""
