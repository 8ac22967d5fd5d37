"""Counts and prices before anything is sent: of files, chats and data sets, as an interval, each price dated.

Nothing is imported here.
"""
