"""Search for hyper-parameters: trials of one configuration with some fields changed, run by Ray Tune, with one report.

    space      which fields, and which values
    trial      one training run as a trial
    search     the trials: start, failures, resume
    report     the table, the best configuration, the plot

Nothing is imported here.
"""
