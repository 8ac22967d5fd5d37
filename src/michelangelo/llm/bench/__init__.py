"""Experiments: a prediction recorded before, a measurement after, a plot and a table. And the auto-tuner.

Nothing is imported here.
"""
