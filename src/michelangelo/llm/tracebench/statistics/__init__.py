"""Tests, intervals and power for paired answers: arrays in, numbers out. It knows neither cases nor recordings.

Nothing is imported here.
"""
