"""What a training or inference run needs and costs, before it runs: memory, time, energy, money, each with an interval.

    hardware, prices        what GPUs there are, and what they cost (dated tables with their sources)
    memory, activations     bytes, by component
    throughput              seconds, by phase, from rooflines (kernels, stacks, communication)
    cost                    hours, kilowatt-hours, money
    plan                    all of it for one setup
    search, pareto          all setups of a space, and which of them are worth a look
    rejections              why the others fail
    explain                 every formula with its numbers and its source
    inference               weights, KV cache, throughput over batch
    calibration             what runs have taught about these predictions
    launch_config, chart    the files that run a plan; the plot

Plain Python: nothing here needs torch, and nothing reaches the network.
"""
