"""The reconcilers, one kind per file."""
