"""The short way of an ordinary question: from a connection's bytes to a model, and its answer back, without a task."""
