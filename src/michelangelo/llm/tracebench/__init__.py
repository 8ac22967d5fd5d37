"""What changed between two versions of a model, prompt, retrieval or serving stack, and how sure one can be of it.

Nothing is imported here.
"""
