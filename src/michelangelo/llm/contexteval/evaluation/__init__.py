"""How good a gate is, on questions that it has not seen: curves, rates with intervals, probes, plots, one report.

Nothing is imported here.
"""
