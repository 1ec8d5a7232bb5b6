"""What is no prediction: passed to the server, and the bytes of large files moved for it."""
