"""Durable execution: journal, driver, replay. Start at journal.py, the protocol."""
