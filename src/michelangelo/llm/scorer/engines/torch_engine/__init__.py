"""An engine of our own on PyTorch: continuous batching over a paged cache, for any decoder of Transformers.

    config        what can be set, checked before anything is loaded
    loading       the model, its tokenizer, and the proof that it runs rightly here
    engine        the `Engine`: requests in, completions out
    flights       requests in flight: what each task takes of a step, and what comes of it
    preparing     a request → tokens and what to do with them, or why not
    generation    the text of one sequence as it grows: stops, limits, log-probabilities
    scheduler     which tokens of which sequences go into the next step
    prefix        blocks that several sequences share, and which to forget first
    paged_cache   the blocks, and the tensors behind them
    forward       one step: chunks of sequences → the model → logits and hidden states
    attention     attention of many sequences in one row, over blocks
    sampler       logits → tokens, for all rows at once
    constraints   tokens that a JSON schema allows
    cuda_graphs   decoding steps replayed without Python, on a GPU

Nothing is imported here: `config` needs no torch.
"""
