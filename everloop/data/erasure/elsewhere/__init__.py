"""Places beside the tables that hold a subject: feeds, streams, logged files, traces, caches, temporary files."""
