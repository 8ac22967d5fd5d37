"""Answers from a corpus and nothing else: retrieval, a gate whose threshold is fitted to a promised risk, cited claims.

Nothing is imported here.
"""
