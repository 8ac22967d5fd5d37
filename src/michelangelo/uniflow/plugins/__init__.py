"""Executor configurations for clusters, and what goes with them: one package per library, none of which is imported."""
