"""What torch's FLOP counter counts for a step of a model, to check the closed forms of `mfu.flops` with.

The counter must see attention as matrix products: on a CPU, SDPA runs in a kernel that it has no formula for, and its
FLOPs are left out without a word. So the model is built with eager attention unless the trap itself is wanted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from michelangelo.llm.tracing import slices
from michelangelo.llm.training_setup import TrainingSetup

__all__ = ["counted_step"]


def counted_step(config: Mapping[str, Any], setup: TrainingSetup, *, attention: str = "eager") -> int:
    """FLOPs of one forward and backward pass over all tokens of a micro-batch, on shapes without bytes."""
    described = slices.described(config, attention=attention)
    model = slices.build(described, dtype=torch.float32)
    if setup.method != "full":
        model = slices.with_lora(model, setup)
    if setup.checkpointing == "full":
        slices.checkpointed(model)
    with slices.fake():
        slices.with_storages(model)
        tokens = slices.fake_tokens(setup.micro_batch, setup.sequence_length)
        with FlopCounterMode(display=False) as counter:
            model(input_ids=tokens).logits.sum().backward()
    return int(counter.get_total_flops())
