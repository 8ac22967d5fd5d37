"""One way to train a model on some hardware: what the planner judges, the tuner tries and the trainer runs.

It holds values only. What they cost is in `planner`; how they are run is in `finetune`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, get_args

__all__ = [
    "ATTENTIONS",
    "CHECKPOINTINGS",
    "CROSS_ENTROPIES",
    "METHODS",
    "OBJECTIVES",
    "OFFLOADS",
    "OPTIMIZERS",
    "PRECISIONS",
    "SHARDINGS",
    "Attention",
    "Checkpointing",
    "CrossEntropy",
    "Method",
    "Objective",
    "Offload",
    "Optimizer",
    "Precision",
    "Sharding",
    "TrainingSetup",
]

Method: TypeAlias = Literal["full", "lora", "qlora"]
"""All weights; low-rank adapters on frozen weights; the same on weights in 4 bits (NF4)."""
Objective: TypeAlias = Literal["pretrain", "sft", "dpo"]
"""Next-token loss on text; on completions of prompts; preference pairs against a reference model."""
Sharding: TypeAlias = Literal["none", "zero1", "zero2", "zero3", "fsdp2"]
"""What is divided among the GPUs: nothing (data parallel), optimizer states, also gradients, also weights."""
Offload: TypeAlias = Literal["none", "optimizer", "parameters"]
"""What rests in the host's memory: nothing, optimizer states (and their step), also the weights."""
Checkpointing: TypeAlias = Literal["none", "selective", "full"]
"""Which activations are computed again. `selective`: all within a layer but the outputs of attention and of every
second matrix product (the first, third, …), torchtitan's policy. `full`: all within a layer, whose input is kept."""
Attention: TypeAlias = Literal["flash", "eager"]
"""`flash`: any kernel that keeps no S x S matrix (SDPA's flash, cuDNN, FlashAttention). `eager` keeps it."""
CrossEntropy: TypeAlias = Literal["plain", "chunked"]
"""`chunked`: the logits of a few tokens at a time, never all of them (also what fused kernels do)."""
Optimizer: TypeAlias = Literal["adamw", "adamw_8bit", "paged_adamw_8bit", "sgd"]
Precision: TypeAlias = Literal["bf16", "bf16_mixed", "fp32"]
"""`bf16`: weights, gradients and optimizer states of what is trained in bf16. `bf16_mixed`: weights in bf16, and fp32
copies of what is trained in the optimizer (16 bytes a parameter with AdamW: 2 weight, 2 gradient, 4 copy, 8 moments; a
gradient takes 4 instead of 2 at the step, and while several passes are accumulated). `fp32`: everything."""

METHODS: Final[tuple[str, ...]] = get_args(Method)
OBJECTIVES: Final[tuple[str, ...]] = get_args(Objective)
SHARDINGS: Final[tuple[str, ...]] = get_args(Sharding)
OFFLOADS: Final[tuple[str, ...]] = get_args(Offload)
CHECKPOINTINGS: Final[tuple[str, ...]] = get_args(Checkpointing)
ATTENTIONS: Final[tuple[str, ...]] = get_args(Attention)
CROSS_ENTROPIES: Final[tuple[str, ...]] = get_args(CrossEntropy)
OPTIMIZERS: Final[tuple[str, ...]] = get_args(Optimizer)
PRECISIONS: Final[tuple[str, ...]] = get_args(Precision)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSetup:
    """Defaults are those of the trainer on one GPU."""

    method: Method = "lora"
    objective: Objective = "sft"
    micro_batch: int = 1
    """Sequences per GPU and forward pass."""
    sequence_length: int = 2048
    """Tokens per sequence; with packing all of them count."""
    gradient_accumulation: int = 1
    """Forward passes per optimizer step."""
    num_gpus: int = 1
    gpus_per_node: int = 8
    sharding: Sharding = "none"
    tensor_parallel: int = 1
    """GPUs that share each layer; divides num_gpus."""
    offload: Offload = "none"
    checkpointing: Checkpointing = "none"
    attention: Attention = "flash"
    cross_entropy: CrossEntropy = "chunked"
    optimizer: Optimizer = "adamw"
    precision: Precision = "bf16_mixed"
    lora_rank: int = 16
    lora_targets: tuple[str, ...] = ("all",)
    """`all`: every projection of attention and MLP (experts too); or names as in the model (`q_proj`)."""
    compiled: bool = False
    """torch.compile of each layer."""
    packing: bool = True
    """Sequences are filled with documents; without it, `padding_share` of the tokens are padding."""
    padding_share: float = 0.0
    lora_dropout: float = 0.0
    """Above 0, each adapter keeps its own dropped copy of the input."""
    double_quantization: bool = True
    """QLoRA: the scales of NF4's blocks in 8 bits."""
    quantized_copy_bytes: int | None = None
    """QLoRA: per element, of a copy of its input that each quantised matrix keeps for the way back. None: not known, 2
    in eager mode and 0 compiled. 0 with bitsandbytes from 0.45 on and torchao; 2 in LitGPT's published runs."""
    optimizer_in_backward: bool = False
    """Each parameter is stepped as soon as its gradient is there, which is then freed."""
    activation_offload: bool = False
    """What is kept for the way back rests in the host's memory."""
    ddp_buckets: bool = False
    """Without sharding, gradients have a second copy in buckets (DistributedDataParallel's default)."""
    reference_precomputed: bool = False
    """DPO: the frozen reference answered for all rows before the first step. That pass, about a third of what one epoch
    computes, is no part of a step."""

    @property
    def data_parallel(self) -> int:
        """Replicas of the data: GPUs that see different sequences."""
        return self.num_gpus // self.tensor_parallel

    @property
    def asks_reference(self) -> bool:
        """Whether each step has a forward pass of DPO's frozen reference."""
        return self.objective == "dpo" and not self.reference_precomputed

    @property
    def num_nodes(self) -> int:
        return -(-self.num_gpus // self.gpus_per_node)

    @property
    def tokens_per_step(self) -> int:
        """Positions of all GPUs in one optimizer step, padding included."""
        return self.micro_batch * self.sequence_length * self.gradient_accumulation * self.data_parallel

    def replace(self, **changes: Any) -> TrainingSetup:
        """The same with some fields changed."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """For JSON; lists for tuples."""
        return {**dataclasses.asdict(self), "lora_targets": list(self.lora_targets)}
