"""The Ray side of executor `ray`: the agent, which speaks with a Ray for one driver, and what runs in Ray's workers."""
