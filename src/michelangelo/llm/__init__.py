"""Language models as a closed loop: plan, choose, run, measure, calibrate. Plain libraries that need no platform.

    config_file      a run's or a job's file as a mapping, and what is wrong in it
    model_shape      what a model is, as far as arithmetic is concerned
    training_setup   one way to train it on some hardware
    planner          what a setup needs and costs, before it runs
    mfu              FLOPs by every convention, and what share of the hardware they use
    tracing          what a model really does, counted on a CPU
    finetune         training: data, adapters, the loop, checkpoints, parallelism, trackers
    scorer           millions of prompts through engines, each row exactly once
    tokens           counts and prices, before anything is sent
    contexteval      answers from a corpus only, with a fitted gate: or "Not in corpus"
    tracebench       what changed between two versions, with error bars
    bench            experiments with a prediction before and a measurement after; the auto-tuner

Nothing is imported here: a plan needs no torch.
"""
