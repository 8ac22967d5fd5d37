"""Content-addressed blobs and logs, on a local directory or on any fsspec file system."""
