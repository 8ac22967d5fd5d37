"""Michelangelo: an open ML platform in Python.

This module only carries the version: importing it loads nothing else, so that every entry point
(`import michelangelo.uniflow`, `mactl --help`, a task's process) pays only for what it uses.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
