"""Rows of text → sequences of tokens → packed batches, in an order that can be resumed anywhere.

    opening       what the trainer calls: a configuration → batches
    locations     paths, patterns, folders and URLs → files
    shards        one file or data set, read from any position on
    tables        the same with random access, for data that is not streamed
    ordering      which row comes when: mixtures, shuffles, passes
    parsing       a raw row → checked fields of an objective
    chat          conversations → text, and which part of it the assistant said
    tokenizing    rows → samples of tokens and what is trained of them
    packing       samples → rows of one length
    stream        all of this as one stream with a position
    batching      rows → tensors, one process's share
    prefetching   the same in a thread, ahead of the model
    report        what was read, what was wrong, how full the rows are
    statistics    how much there is, for a plan

Every process reads the one global stream and keeps its share of it. Nothing is imported here.
"""
