"""Where the events of a run go without any service: a file that programs read, and the terminal that people read.

Trackers, which are services of others, are in `trackers`. Nothing is imported here.
"""
