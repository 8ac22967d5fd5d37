"""Formats of documents, one per file, each read into blocks. The table of them is in `documents`.

Nothing is imported here.
"""
