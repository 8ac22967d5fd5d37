"""What an answer is judged by, a file per way of judging; `registry` knows them all.

Nothing is imported here.
"""
