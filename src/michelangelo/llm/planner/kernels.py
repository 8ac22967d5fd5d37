"""How much of a datasheet's peak kernels reach, by family of hardware and by software stack: constants of the time
model.

Every constant is shared by all models, all setups and all hardware of a family. Those for which sources give a range
were chosen in it by the published rows of tests/llm/planner/data (some 240, of 11 sources); tests/llm/planner/fitting
does that again without each source in turn, and predicts it (docs/llm/plan.md has the errors). They are no measurement
of the machine at hand: `calibration` adds that.

Sources, where no other is named:
    matmul      cuBLAS on square matrices of random data reaches 769-798 of 989 TFLOP/s on an H200 (measured), which is
                the ceiling; in a step, with other shapes and under the power limit, less
    attention   FlashAttention-2 (Dao 2023, arXiv 2307.08691, figures 4-6): forward to 0.73, backward to 0.63 of an
                A100; FlashAttention-3 (Shah et al. 2024, arXiv 2407.08608, figures 5-7): FlashAttention-2 reaches
                0.35-0.40 of an H100, the third and cuDNN 0.5-0.75; Triton's of 2023 about half of FlashAttention-2
    traffic     what copies reach of the memory's rate: 4.3 of 4.8 TB/s on an H200 (measured)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from michelangelo import errors
from michelangelo.llm.planner.hardware import Hardware
from michelangelo.llm.training_setup import TrainingSetup

__all__ = [
    "RATES",
    "STACKS",
    "AttentionKernel",
    "Fusion",
    "Rates",
    "Stack",
    "attention_share",
    "stack_for",
    "stack_named",
]

Fusion: TypeAlias = Literal["eager", "compiled", "fused"]
"""How operations between matrix products are computed: one kernel each, as torch.compile fuses them, or by hand-written
kernels (Transformer Engine, Liger)."""
AttentionKernel: TypeAlias = Literal["triton", "flash2", "flash3"]
"""Triton's FlashAttention of 2023; FlashAttention-2 and SDPA's flash; FlashAttention-3 and cuDNN's (on Hopper and
later; before, the second is used)."""


@dataclass(frozen=True, slots=True)
class Stack:
    """The software that trains: what is named, not fitted, when a row of somebody else is predicted."""

    name: str
    fusion: Fusion
    attention: AttentionKernel
    adapters: Fusion
    """How LoRA's update is added."""
    fp8: bool = False
    """Matrix products of linear layers in fp8."""
    about: str = ""


STACKS: Final[Mapping[str, Stack]] = {
    stack.name: stack
    for stack in (
        Stack("trainer", "eager", "flash3", "fused", about="michelangelo.llm.finetune, not compiled"),
        Stack("trainer-compiled", "compiled", "flash3", "fused", about="michelangelo.llm.finetune with torch.compile"),
        Stack("eager", "eager", "flash2", "eager", about="Transformers, torchtune, torchtitan, TRL as they come; SDPA"),
        Stack("compiled", "compiled", "flash2", "compiled", about="the same with torch.compile"),
        Stack("compiled-fp8", "compiled", "flash2", "compiled", True, "the same with torchao's float8 linear layers"),
        Stack("automodel", "eager", "flash2", "fused", about="NeMo AutoModel: Transformers' model, LoRA in Triton"),
        Stack("automodel-compiled", "compiled", "flash2", "fused", about="the same with torch.compile"),
        Stack("fused", "fused", "flash3", "fused", about="Megatron, NeMo: Transformer Engine's kernels"),
        Stack("fused-fp8", "fused", "flash3", "fused", True, "the same in fp8"),
        Stack("triton", "eager", "triton", "eager", about="llm-foundry of 2023: FSDP, Triton's attention"),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Shares of a peak, and what is left exposed; 0 … 1 where nothing else is said."""

    matmul: Mapping[str, float]
    """By family: of large matrix products, of the peak, in a running step (under its power limit)."""
    matmul_fp8: float
    """fp8 products, with their casts, relative to the share reached in bf16."""
    matmul_traffic: float
    """Of a product's memory traffic, how much adds to its time."""
    attention: Mapping[str, Mapping[str, float]]
    """By kernel and family: forward, of the peak."""
    attention_backward: float
    """Backward, relative to forward."""
    attention_ramp: float
    """Tokens: a kernel reaches S / (S + ramp) of its rate."""
    narrow_heads: float
    """Heads of 64 reach this much of what those of 128 do."""
    traffic: float
    """What elementwise kernels reach of the memory's rate."""
    optimizer_traffic: float
    """The same for the optimizer's step and for sums of gradients."""
    link: float
    """What collectives reach of the link's rate within a node."""
    network: float
    """What they reach of the network's rate."""
    exposed: float
    """Of communication that runs beside computation, what adds to its time."""
    exposed_tensor: float
    """The same of tensor parallelism, which waits for it."""
    launch_seconds: float
    """Of one kernel, on the host."""
    step_seconds: float
    """Per optimizer step: data, logging, synchronisation."""
    wave: float
    """Waves of tiles that a product loses at its end."""
    power: float
    """Exponent: a card that is limited to a share p of its family's usual power keeps p ** power of its rate."""
    host_traffic: float
    """What a CPU's Adam reaches of the host memory's rate."""
    grouped: float
    """Products of a mixture's experts, relative to dense ones."""
    dequantize_traffic: float
    """What unpacking NF4 reaches of the memory's rate."""


RATES: Final = Rates(
    matmul={
        "volta": 0.70,
        "turing": 0.65,
        "ampere": 0.73,
        "ada": 0.85,
        "hopper": 0.625,
        "blackwell": 0.65,
        "cdna3": 0.50,
        "cpu": 0.60,
    },
    matmul_fp8=0.935,
    matmul_traffic=0.33,
    attention={
        "triton": {"ampere": 0.35, "hopper": 0.19},
        "flash2": {"ampere": 0.62, "hopper": 0.30, "ada": 0.55, "blackwell": 0.13, "cdna3": 0.25},
        "flash3": {"hopper": 0.69, "blackwell": 0.60},
    },
    attention_backward=0.85,
    attention_ramp=460.0,
    narrow_heads=0.91,
    traffic=0.865,
    optimizer_traffic=0.73,
    link=0.72,
    network=0.66,
    exposed=0.61,
    exposed_tensor=0.65,
    launch_seconds=5e-6,
    step_seconds=0.005,
    wave=0.425,
    power=0.46,
    host_traffic=0.5,
    grouped=0.75,
    dequantize_traffic=0.5,
)


def stack_named(name: str) -> Stack:
    """Raises SettingsError that tells the names."""
    if name not in STACKS:
        raise errors.SettingsError(f"stack {name}: there is no such one; there are {', '.join(STACKS)}")
    return STACKS[name]


def stack_for(setup: TrainingSetup) -> Stack:
    """Of our trainer, as `setup` has it."""
    return STACKS["trainer-compiled" if setup.compiled else "trainer"]


def attention_share(kernel: AttentionKernel, hardware: Hardware, rates: Rates = RATES) -> float:
    """Of the peak, forward: of the newest kernel up to `kernel` that the family has."""
    by_family = rates.attention[kernel]
    if hardware.family in by_family:
        return by_family[hardware.family]
    return rates.attention["flash2"].get(hardware.family, 0.4)
