"""Executor `ray`: attempts in Ray, on a local Ray of the run or in a cluster. Start at executor.py.

Nothing here imports ray. The process that speaks with Ray is a child of the driver (worker/ray/agent.py), so that what
ends Ray ends no driver, and Ray's banners, signal handlers and threads are not in it.
"""
