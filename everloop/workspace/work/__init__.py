"""Work that runs a project's own code: tasks, retraining, checks, reproduction, and where steps run."""
