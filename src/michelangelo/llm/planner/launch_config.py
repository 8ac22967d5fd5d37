"""The files that run a plan: the configuration of `mactl llm finetune`, and DeepSpeed's where ZeRO is asked for.

Plain documents, so that a plan needs nothing of the trainer; tests load them with the trainer's own schema.
"""

from __future__ import annotations

from typing import Any, Final

from michelangelo.llm import deepspeed_config
from michelangelo.llm.planner.plan import Plan
from michelangelo.llm.training_setup import TrainingSetup

__all__ = ["deepspeed", "finetune"]

_LEARNING_RATES: Final = {"full": 1e-5, "lora": 2e-4, "qlora": 2e-4}
"""Where to start: adapters take ten times the rate of full tuning (Schulman et al. 2025, "LoRA Without Regret")."""


def finetune(plan: Plan, *, model: str = "", data: str = "train.jsonl", output: str = "out") -> dict[str, Any]:
    """`model`: a folder or a name that Transformers knows; else the plan's model, which is to be replaced by one."""
    setup = plan.setup
    document: dict[str, Any] = {
        "model": {"path": model or plan.model, "attention": "eager" if setup.attention == "eager" else "auto"},
        "objective": setup.objective,
        "data": {
            "train": [{"path": data}],
            "sequence_length": setup.sequence_length,
            "packing": setup.packing,
        },
        "output": output,
        "adapter": {"method": setup.method},
        "optimizer": {"name": setup.optimizer, "learning_rate": _LEARNING_RATES[setup.method]},
        "training": {
            "max_steps": plan.cost.steps,
            "micro_batch": setup.micro_batch,
            "gradient_accumulation": setup.gradient_accumulation,
            "precision": setup.precision,
            "checkpointing": setup.checkpointing,
            "cross_entropy": setup.cross_entropy,
            "compiled": setup.compiled,
        },
        "parallel": {
            "sharding": setup.sharding,
            "offload": setup.offload,
            "tensor_parallel": setup.tensor_parallel,
            "num_workers": setup.num_gpus,
        },
    }
    if setup.method != "full":
        document["adapter"] |= {
            "rank": setup.lora_rank,
            "alpha": 2.0 * setup.lora_rank,
            "targets": list(setup.lora_targets),
        }
    if setup.reference_precomputed:
        document["preference"] = {"precompute_reference": True}
    return document


def deepspeed(setup: TrainingSetup) -> dict[str, Any]:
    """Its JSON; empty where no ZeRO stage is asked for."""
    return deepspeed_config.make(setup)
