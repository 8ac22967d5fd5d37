"""Content-addressed blobs and bounded logs: where data goes that is too large for an object."""
