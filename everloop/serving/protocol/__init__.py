"""What callers speak: the Open Inference Protocol v2, MLflow's scoring protocol, and plain JSON. Pure functions."""
