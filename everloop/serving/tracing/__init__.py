"""OpenTelemetry traces of answered questions: sampled, and told off the path to the answer."""
