"""The Store: keys, revisions, bytes. It knows no kind. Start at store.py, the protocol."""
