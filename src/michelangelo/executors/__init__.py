"""Where attempts of tasks run. Start at base.py, the protocol."""
