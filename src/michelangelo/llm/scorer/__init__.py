"""Scoring offline: millions of prompts through engines of several kinds, each row of the input exactly once.

    engine         what every engine does: take requests, hand back completions
    engines        the engines: our own on PyTorch, vLLM, any OpenAI-compatible server, a deterministic one for tests
    named_engines  an engine from what a user writes: a file, or a short text
    engine_kinds   the engines by name, each loaded when it is asked for
    config         what a job is told, checked as a whole
    sources        files of rows as numbered streams; what tells one file from another
    sharding       rows divided into shards, with digests
    ray_data       what Ray Data reads, brought into files
    templates      a row's columns → a request; row_error: a row that cannot become one
    batch_format   OpenAI's batch format, in and out
    results        a completion → a line of the output
    parts          logs of rows with checksums, and the sealed part of a shard
    manifest       a job's folder: what it is, which shards are done, who works on it
    replicas       who does the work: threads, processes, actors of Ray
    dispatching    who works on which shard; losses and their consequences
    writing        sealed parts → the output
    sketch         quantiles of a stream in bounded memory
    report, page   what came of it: figures, and one HTML file
    prediction     what the planner says of it, before and after
    sweep          the same sample with 1, 2, 4, … requests at once, and the knee
    display        how far it is, on standard error
    job            all of it: begun, resumed, or found to be finished

Nothing is imported here.
"""
