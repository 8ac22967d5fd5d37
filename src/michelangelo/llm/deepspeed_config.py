"""DeepSpeed's document for a way to train: what a plan writes down, and what the trainer's DeepSpeed engine is given.

Keys as in "DeepSpeed Configuration JSON" (https://www.deepspeed.ai/docs/config-json/). It needs neither torch nor
DeepSpeed.
"""

from __future__ import annotations

from typing import Any, Final

from michelangelo.llm.training_setup import TrainingSetup

__all__ = ["STAGES", "make"]

STAGES: Final = {"zero1": 1, "zero2": 2, "zero3": 3}
"""Of DeepSpeed's ZeRO, by `TrainingSetup.sharding`."""
_BUCKET_ELEMENTS: Final = 500_000_000
"""DeepSpeed's default: elements that are reduced together, twice of which are held beside the gradients."""


def make(setup: TrainingSetup, *, max_grad_norm: float = 1.0) -> dict[str, Any]:
    """Without an optimizer, which the program or the plan's reader adds; empty where no ZeRO stage is asked for.

    `max_grad_norm` 0: gradients are not clipped.
    """
    stage = STAGES.get(setup.sharding)
    if stage is None:
        return {}
    zero: dict[str, Any] = {
        "stage": stage,
        "overlap_comm": True,
        "contiguous_gradients": True,
        "reduce_bucket_size": _BUCKET_ELEMENTS,
    }
    if setup.offload != "none":
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": True}
    if setup.offload == "parameters":
        zero["offload_param"] = {"device": "cpu", "pin_memory": True}
    if stage == 3:
        zero["stage3_gather_16bit_weights_on_model_save"] = True
    return {
        "train_micro_batch_size_per_gpu": setup.micro_batch,
        "gradient_accumulation_steps": setup.gradient_accumulation,
        "train_batch_size": setup.micro_batch * setup.gradient_accumulation * setup.data_parallel,
        "gradient_clipping": max_grad_norm,
        "bf16": {"enabled": setup.precision != "fp32"},
        "zero_optimization": zero,
    }
