"""A comparison for people and for CI: tables, Markdown, JUnit XML, one HTML file. It computes nothing.

Nothing is imported here.
"""
