"""Training of decoder-only language models: data, adapters, the loop, checkpoints, parallelism, trackers.

    config        what a run is told, checked as a whole
    data/         rows → token sequences → packed batches, in an order that can be resumed
    model         loading, attention over packed sequences, adapters, the loss
    strategy      who has which part of the model: one process, FSDP2, ZeRO
    checkpoint/   atomic, asynchronous, sharded
    recording     what happens, as events, for the terminal, trackers and the platform
    trainer       the loop

Nothing is imported here.
"""
