"""Several processes: who holds which part (`choosing` and the strategies), and how they are started (`launching`)."""
