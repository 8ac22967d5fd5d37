"""Scoring offline: millions of prompts through engines of several kinds, each row of the input exactly once.

    engine       what every engine does: take requests, hand back completions
    engines      the engines: our own on PyTorch, vLLM, any OpenAI-compatible server, a deterministic one for tests
    …

Nothing is imported here.
"""
