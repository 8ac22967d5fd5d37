"""Peak memory of a training step, per GPU and per host, by component, before it runs: closed forms, no torch.

A step is followed through its phases (loss, first layer going back, end of the backward pass, optimizer step); the peak
is the largest sum of what lives at the same moment, and the components are those of that moment. Three sums are given:

    allocated   what torch.cuda.max_memory_allocated would say
    reserved    with the allocator's unused pieces: max_memory_reserved
    peak        with what the process holds outside torch (context, NCCL): what nvidia-smi shows, what must fit

It knows no GPU and chooses nothing. docs/llm/memory.md explains the formulae and how they were checked.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from michelangelo.llm.model_shape import ModelShape
from michelangelo.llm.planner import activations, parameters
from michelangelo.llm.training_setup import TrainingSetup

__all__ = ["LEVEL", "PHASES", "Component", "MemoryEstimate", "estimate", "loss_bytes"]

PHASES: Final = ("loss", "backward", "attention", "backward_end", "step")
LEVEL: Final = 0.9
"""Share of runs whose peak is meant to lie within [low, high]."""

_PIECE_BYTES: Final = 1 << 30
_MIN_PIECE_TOKENS: Final = 256
"""Chunked cross-entropy: fp32 logits of one piece (finetune.cross_entropy)."""
_CONTEXT_BYTES: Final = 500 << 20
"""CUDA context and loaded kernels of a process: 400 to 600 MiB by GPU (nvidia-smi after torch.cuda.init())."""
_WORKSPACE_BYTES: Final = 32 << 20
"""cuBLAS workspace that torch allocates per handle and stream: 8 MiB, 32 MiB on Hopper (PyTorch's CUDA notes)."""
_NCCL_BYTES: Final = 400 << 20
"""Channels and buffers of communicators of several GPUs, outside torch's allocator."""
_LARGE_BLOCK: Final = 2 << 20
"""The allocator takes memory in multiples of 2 MiB (PyTorch's CUDA caching allocator)."""
_FRAGMENTED_SHARE: Final = 0.03
"""Of what is allocated anew each step; with expandable segments less, with sequences of many lengths more."""
_UNCERTAIN: Final = {"states": 0.03, "activations": 0.15, "logits": 0.3, "temporary": 0.5, "outside": 0.5}
"""Half widths at LEVEL, as shares, for any framework; they are added as independent errors. Set so that nine of ten
published rows are held, and checked with each source left out (tests/llm/planner/test_memory_accuracy.py)."""


@dataclass(frozen=True, slots=True)
class Component:
    """A part of the peak."""

    name: str
    bytes: int
    formula: str
    source: str


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Bytes. `gpu` sums up to `peak`, `host` to `host_bytes` (of one node)."""

    gpu: tuple[Component, ...]
    host: tuple[Component, ...]
    phase: str
    """In which the peak is."""
    phases: Mapping[str, int]
    """Allocated bytes at the peak of each phase."""
    allocated: int
    reserved: int
    peak: int
    low: int
    high: int
    """Of `peak`, at `level`."""
    level: float = LEVEL

    @property
    def host_bytes(self) -> int:
        return sum(component.bytes for component in self.host)

    def component(self, name: str) -> int:
        """Bytes of a component of the GPU; 0 if it has none of that name."""
        return sum(component.bytes for component in self.gpu if component.name == name)


def estimate(shape: ModelShape, setup: TrainingSetup) -> MemoryEstimate:
    """The peak of one step after the first (optimizer states exist). Raises ModelError for unknown lora_targets."""
    states = parameters.states_of(shape, setup)
    tokens = setup.micro_batch * setup.sequence_length * (2 if setup.objective == "dpo" else 1)
    kept = activations.kept_by_layers(shape, setup) * tokens
    layer = activations.largest_layer(shape, setup).total * tokens
    ends = activations.ends_bytes(shape, setup) * tokens
    working = _working_bytes(shape, setup) * tokens
    loss = loss_bytes(shape, setup, tokens) + (states.head_sum if setup.cross_entropy == "chunked" else 0.0)
    offloaded = 0.0
    if setup.activation_offload:
        offloaded = max(0.0, kept.total - 2 * kept.total / shape.num_layers)
        kept = kept * (1 - offloaded / kept.total)
    # A layer that goes back is there whole: what checkpointing didn't keep of it is computed again.
    recomputed = 0.0 if setup.checkpointing == "none" else max(0.0, layer - kept.total / shape.num_layers)
    earlier = states.gradients if setup.gradient_accumulation > 1 and not setup.optimizer_in_backward else 0.0
    whole = _Live(earlier, kept, ends, loss, states.gathered + states.gathered_head)
    phases = {
        "loss": whole,
        "backward": _Live(
            max(earlier, states.head_gradient),
            kept,
            ends + recomputed,
            0.0,
            states.gathered + states.dequantized + max(working, states.reducing),
        ),
        "backward_end": _Live(
            states.gradients,
            kept * (1 / shape.num_layers),
            recomputed,
            0.0,
            states.gathered + states.dequantized + max(working, states.reducing),
        ),
        "step": _Live(states.step_gradients, activations.LayerBytes(), 0.0, 0.0, 0.0),
    }
    if setup.attention == "eager":
        phases["attention"] = _attention_going_back(shape, setup, states, phases["backward"], tokens)
    resting = states.weights + states.reference + states.optimizer + _WORKSPACE_BYTES
    name = max(phases, key=lambda phase: phases[phase].total)
    return _assemble(setup, states, phases, name, resting, offloaded)


def loss_bytes(shape: ModelShape, setup: TrainingSetup, tokens: int) -> float:
    """At the peak of the loss, beside the gradient of the output matrix.

    Plain: the logits, and in fp32 their log-softmax, the gradient of the picked log-probabilities and that of the
    logits (on the way forward a copy in fp32 takes the place of the last two): 14 bytes a logit in bf16. Chunked:
    logits and their gradients of one piece, and the gradient of all hidden states.
    """
    element = activations.element_bytes(setup)
    if setup.cross_entropy == "plain":
        return float(tokens * shape.vocab_size * (element + 12))
    piece = min(tokens, max(_MIN_PIECE_TOKENS, _PIECE_BYTES // (4 * shape.vocab_size)))
    per_logit = 2 * element if setup.objective != "dpo" else element + 12
    return float(piece * shape.vocab_size * per_logit + tokens * shape.hidden_size * element)


@dataclass(slots=True)
class _Live:
    """What lives in a phase beside weights and optimizer states. Bytes."""

    gradients: float
    kept: activations.LayerBytes
    again: float
    """Activations of the ends, and of a layer that is computed again."""
    loss: float
    temporary: float

    @property
    def total(self) -> float:
        return self.gradients + self.kept.total + self.again + self.loss + self.temporary


def _attention_going_back(
    shape: ModelShape, setup: TrainingSetup, states: parameters.States, backward: _Live, tokens: int
) -> _Live:
    """When the scores of eager attention have gradients, the layer's MLP and its norm, and the ends, have gone."""
    gradients, freed = activations.scores_going_back(shape, setup)
    layer = activations.largest_layer(shape, setup)
    gone = (layer.mlp + layer.norms / 2 + freed) * tokens
    if setup.checkpointing == "none":
        # Gone from one layer of many: taken off all sorts alike, as only the sum matters here.
        kept = backward.kept * max(0.0, 1 - gone / backward.kept.total)
        gone = 0.0
    else:
        kept = backward.kept
    again = max(0.0, backward.again - gone - activations.ends_bytes(shape, setup) * tokens)
    working = (gradients + 2 * activations.element_bytes(setup) * shape.hidden_size) * tokens
    temporary = states.gathered + states.dequantized + max(working, states.reducing)
    return _Live(backward.gradients, kept, again, 0.0, temporary)


def _working_bytes(shape: ModelShape, setup: TrainingSetup) -> float:
    """Per token: gradients within a layer while it goes back: of the product, gate and up of an MLP, and of two
    residual streams."""
    element, split = activations.element_bytes(setup), setup.tensor_parallel
    width = max(shape.intermediate_size * max(1, shape.experts_per_token), shape.dense_intermediate_size) / split
    inner = element * width * (3 if shape.gated_mlp else 2)
    return inner + 2 * element * shape.hidden_size


def _assemble(
    setup: TrainingSetup,
    states: parameters.States,
    phases: Mapping[str, _Live],
    name: str,
    resting: float,
    offloaded: float,
) -> MemoryEstimate:
    live = phases[name]
    dynamic = live.kept.total + live.again + live.loss + live.temporary
    fragmented = _FRAGMENTED_SHARE * dynamic + 8 * _LARGE_BLOCK
    outside = _CONTEXT_BYTES + (_NCCL_BYTES if setup.num_gpus > 1 else 0)
    sizes = (
        states.weights,
        states.reference,
        live.gradients,
        states.optimizer,
        live.kept.attention,
        live.kept.mlp,
        live.kept.norms,
        live.kept.residual,
        live.again,
        live.loss,
        live.temporary + _WORKSPACE_BYTES,
        fragmented,
        outside,
    )
    gpu = tuple(
        Component(label, round(size), formula, source)
        for size, (label, formula, source) in zip(sizes, _GPU, strict=True)
        if size
    )
    host_sizes = (
        states.host_weights,
        states.host_gradients,
        states.host_optimizer,
        offloaded * min(setup.gpus_per_node, setup.num_gpus),
        states.host_buffers,
    )
    host = tuple(
        Component(label, round(size), formula, source)
        for size, (label, formula, source) in zip(host_sizes, _HOST, strict=True)
        if size
    )
    peak = sum(component.bytes for component in gpu)
    width = math.sqrt(
        (_UNCERTAIN["states"] * (resting + live.gradients)) ** 2
        + (_UNCERTAIN["activations"] * (live.kept.total + live.again)) ** 2
        + (_UNCERTAIN["logits"] * live.loss) ** 2
        + (_UNCERTAIN["temporary"] * live.temporary) ** 2
        + (_UNCERTAIN["outside"] * (outside + fragmented)) ** 2
    )
    allocated = round(resting + live.total)
    return MemoryEstimate(
        gpu=gpu,
        host=host,
        phase=name,
        phases={phase: round(resting + each.total) for phase, each in phases.items()},
        allocated=allocated,
        reserved=allocated + round(fragmented),
        peak=peak,
        low=round(peak - width),
        high=round(peak + width),
    )


_ZERO: Final = "Rajbhandari et al. 2020, arXiv 1910.02054"
_TABLE: Final = "tensors that autograd keeps, counted by tracing (docs/llm/memory.md)"
_GPU: Final = (
    (
        "weights",
        "parameters x bytes (bf16 2, fp32 4, NF4 0.516) / tensor_parallel / replicas if sharded (zero3, fsdp2)",
        f"{_ZERO}; NF4: Dettmers et al. 2023, arXiv 2305.14314",
    ),
    ("reference_weights", "parameters x bytes: the frozen reference of DPO", "Rafailov et al. 2023, arXiv 2305.18290"),
    (
        "gradients",
        "trained parameters x 2 (fp32 or summed over passes or stepped in fp32: 4) / replicas if sharded",
        _ZERO,
    ),
    (
        "optimizer_states",
        "trained parameters x (fp32 copy 4 in bf16_mixed + moments: AdamW 2 x 4 or 2 x 2, 8-bit 2 x 1.016, SGD 4 or 2) "
        "/ replicas",
        f"{_ZERO}; 8-bit: Dettmers et al. 2022, arXiv 2110.02861",
    ),
    (
        "activations_attention",
        "tokens x layers x (inputs, q, k, v, output, log-sums or scores, adapter states)",
        _TABLE,
    ),
    ("activations_mlp", "tokens x layers x (input, gate, silu(gate), up, product; x experts per token)", _TABLE),
    ("activations_norms", "tokens x layers x norms x hidden x (fp32 input 4 + normed 2; compiled 2)", _TABLE),
    ("activations_checkpoints", "tokens x layers x hidden x bytes: inputs of layers that are computed again", _TABLE),
    ("activations_recomputed", "tokens x (last norm and its output, or one layer while it is computed again)", _TABLE),
    (
        "logits",
        "plain: tokens x vocabulary x (2 + 3 x 4); chunked: piece x vocabulary x 4 + tokens x hidden x 2 "
        "+ fp32 head gradient",
        "transformers.loss.ForCausalLMLoss; michelangelo.llm.finetune.cross_entropy",
    ),
    (
        "temporary",
        "gathered weights of 2 layers (zero3, fsdp2) + largest dequantised matrix (QLoRA) + gradients within a layer "
        "or a bucket on its way + cuBLAS workspace 32 MiB",
        "PyTorch FSDP2 and DeepSpeed defaults; bitsandbytes",
    ),
    ("fragmentation", "3 % of what each step allocates + 8 blocks of 2 MiB", "PyTorch CUDA caching allocator"),
    ("framework", "CUDA context 500 MiB (+ NCCL 400 MiB with several GPUs)", "nvidia-smi after initialisation"),
)
_HOST: Final = (
    ("weights", "weights that rest on the host x GPUs of a node", "DeepSpeed ZeRO-Infinity; FSDP2 CPUOffloadPolicy"),
    ("gradients", "trained parameters x 4 / replicas x GPUs of a node", "Ren et al. 2021, arXiv 2101.06840"),
    ("optimizer_states", "as on a GPU, or pages of 8-bit states", "Ren et al. 2021, arXiv 2101.06840"),
    ("activations", "tokens x layers x what is kept, but two layers", "torch.autograd.graph.save_on_cpu"),
    ("pinned_buffers", "2 layers x bytes", "DeepSpeed offload; FSDP2 CPUOffloadPolicy(pin_memory=True)"),
)
