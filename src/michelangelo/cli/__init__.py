"""mactl: one verb per file, loaded when it is called."""
