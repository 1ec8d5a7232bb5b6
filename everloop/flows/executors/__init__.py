"""Where steps run: in this process, or each in a child process."""
