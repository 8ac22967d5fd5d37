"""Every number of a plan with its formula, the values in it, and where the formula comes from.

Text only: the numbers are those that memory, throughput and cost computed, and none is computed anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Final

from michelangelo.llm.mfu import flops
from michelangelo.llm.model_shape import ModelShape
from michelangelo.llm.planner import kernels
from michelangelo.llm.planner.plan import Plan
from michelangelo.llm.planner.throughput import Phase

__all__ = ["Line", "lines"]

_GIB: Final = 1 << 30
_ROOFLINE: Final = "Williams et al. 2009, doi 10.1145/1498765.1498785"
_TRAFFIC: Final = "bytes that its kernels read and write (planner.traffic)"
_RING: Final = "Patarasuk and Yuan 2009, doi 10.1016/j.jpdc.2008.09.002; NCCL-tests PERFORMANCE.md"
_OFFLOAD: Final = "Ren et al. 2021 (ZeRO-Offload), arXiv 2101.06840"
_PHASES: Final[Mapping[str, tuple[str, str]]] = {
    "matmul": ("2 x weights x tokens x passes / rate + share of its memory traffic", f"arXiv 2001.08361; {_ROOFLINE}"),
    "output_matrix": ("2 x vocabulary x hidden x tokens x passes / rate", "arXiv 2001.08361"),
    "attention": ("4 L h (S / 2) forward, 2.5 times that backward, / rate", "arXiv 2307.08691, 2407.08608"),
    "attention_scores": ("34 bytes a score, S wide in every head / bandwidth", _TRAFFIC),
    "elementwise": ("norms, rotary, residuals, activation: bytes / bandwidth", _TRAFFIC),
    "logits": ("cross-entropy: bytes a logit x vocabulary x tokens / bandwidth", _TRAFFIC),
    "adapters": (
        "inputs read again, outputs added to / bandwidth + 6 x adapter weights",
        f"{_TRAFFIC}; arXiv 2106.09685",
    ),
    "dequantize": ("(0.516 + 2) bytes x 4-bit weights x passes / bandwidth", "arXiv 2305.14314"),
    "launches": ("kernels x 5 us of the host, beyond what the GPU needs", "torch.profiler of one step"),
    "communication": ("(n - 1) / n x bytes / link or network, as far as it adds to the step", _RING),
    "tensor_parallel": (
        "4 all-reduces of the residual stream a layer (6 with recomputation)",
        f"arXiv 1909.08053; {_RING}",
    ),
    "step": ("data, logging, synchronisation: 5 ms", "assumed"),
    "optimizer": ("values read and written x parameters / bandwidth; sums of gradients; clipping", _TRAFFIC),
    "offload_transfers": ("gradients out, weights back / PCIe", _OFFLOAD),
    "host_optimizer": ("28 bytes x parameters of a node / host memory's bandwidth", _OFFLOAD),
    "activation_offload": ("2 x kept activations / PCIe, beyond the computation", "torch.autograd.graph.save_on_cpu"),
}


@dataclass(frozen=True, slots=True)
class Line:
    """One number."""

    topic: str
    """`model`, `memory`, `host`, `time`, `speed`, `cost`."""
    name: str
    value: str
    formula: str
    source: str

    def to_dict(self) -> dict[str, str]:
        return asdict(self)


def lines(shape: ModelShape, plan: Plan) -> list[Line]:
    """In the order of a plan: model, memory, time, speed, cost."""
    return [*_model(shape, plan), *_memory(plan), *_time(plan), *_speed(shape, plan), *_cost(plan)]


def _model(shape: ModelShape, plan: Plan) -> list[Line]:
    counts = shape.counts
    parts = (
        f"embedding {counts.embedding:,} + attention {counts.attention:,} + mlp {counts.mlp:,}"
        f" + router {counts.router:,} + norms {counts.norms:,} + output {counts.lm_head:,}"
    )
    made = [
        Line("model", "parameters", f"{shape.num_parameters:,}", parts, "config.json, counted by component"),
        Line(
            "model",
            "in products",
            f"{shape.active_matmul_parameters:,}",
            "weights that a token is multiplied with (experts: those it visits)",
            "arXiv 2001.08361",
        ),
    ]
    if plan.setup.method != "full":
        adapters = shape.lora_parameters(plan.setup.lora_rank, plan.setup.lora_targets)
        formula = f"rank {plan.setup.lora_rank} x (in + out) of {', '.join(plan.setup.lora_targets)}"
        made.append(Line("model", "adapters", f"{adapters:,}", formula, "arXiv 2106.09685"))
    return made


def _memory(plan: Plan) -> list[Line]:
    needed = plan.memory
    made = [Line("memory", part.name, _gib(part.bytes), part.formula, part.source) for part in needed.gpu]
    total = "sum of the above"
    if plan.factors.memory_runs:
        total += f" x {plan.factors.memory:.3f}, the median of {plan.factors.memory_runs} runs on {plan.hardware.name}"
    bounds = f"{total}; between {_gib(plan.low_bytes)} and {_gib(plan.high_bytes)} in {needed.level:.0%} of runs"
    made.append(Line("memory", "peak", _gib(plan.peak_bytes), bounds, f"the largest of {', '.join(needed.phases)}"))
    made.append(
        Line("memory", "of", _gib(plan.capacity_bytes), f"total of {plan.hardware.title}", plan.hardware.source)
    )
    made += [Line("host", part.name, _gib(part.bytes), part.formula, part.source) for part in needed.host]
    return made


def _time(plan: Plan) -> list[Line]:
    made = [
        Line("time", phase.name, _seconds(phase.seconds), _filled(phase), _PHASES[phase.name][1])
        for phase in plan.throughput.phases
    ]
    total = "sum of the above"
    if plan.factors.time_runs:
        total = f"each x {plan.factors.time:.3f}, the median of {plan.factors.time_runs} runs on {plan.hardware.name}"
    made.append(Line("time", "step", _seconds(plan.throughput.seconds_per_step), total, "planner.throughput"))
    return made


def _filled(phase: Phase) -> str:
    text = _PHASES[phase.name][0]
    if not phase.rate:
        return text
    if not phase.bytes or (phase.flops and phase.rate > 1e13):
        return f"{text}: {phase.flops:.3g} FLOP at {phase.rate / 1e12:,.0f} TFLOP/s"
    return f"{text}: {phase.bytes:.3g} bytes at {phase.rate / 1e9:,.0f} GB/s"


def _speed(shape: ModelShape, plan: Plan) -> list[Line]:
    speed, setup, hardware = plan.throughput, plan.setup, plan.hardware
    counted = flops.per_token(shape, sequence_length=setup.sequence_length, setup=setup)
    share = kernels.RATES.matmul[hardware.family]
    made = [
        Line(
            "speed",
            "tokens/s",
            f"{speed.tokens_per_second:,.0f}",
            f"{speed.tokens_per_step:,} tokens a step / {speed.seconds_per_step:.3f} s",
            f"stack {speed.stack}: matrix products reach {share:.0%} of {hardware.family}'s peak (planner.kernels)",
        )
    ]
    for name in flops.CONVENTIONS:
        per_token = counted.by(name)
        used = speed.tokens_per_second_per_gpu * per_token / speed.peak_flops
        rate, peak = f"{speed.tokens_per_second_per_gpu:,.0f} tokens/s/GPU", f"{speed.peak_flops / 1e12:,.0f} TFLOP/s"
        formula = f"{rate} x {per_token:.4g} FLOP / {peak}"
        title = "HFU" if name == "hardware" else f"MFU {name}"
        made.append(Line("speed", title, f"{used:.1%}", formula, "mfu.flops"))
    return made


def _cost(plan: Plan) -> list[Line]:
    paid = plan.cost
    made = [
        Line(
            "cost",
            "hours",
            f"{paid.hours.value:,.2f}",
            f"{paid.tokens:,.0f} tokens / {plan.throughput.tokens_per_second:,.0f} tokens/s",
            "planner.cost",
        )
    ]
    if paid.money is not None and paid.price is not None:
        formula = f"{paid.gpu_hours.value:,.2f} GPU hours x {paid.price.per_gpu_hour:,.2f} {paid.currency}"
        source = " ".join(filter(None, (paid.price.provider, paid.price.product, paid.price.date, paid.price.address)))
        made.append(Line("cost", "rent", f"{paid.money.value:,.2f} {paid.currency}", formula, source))
    energy = f"{plan.setup.num_gpus} GPUs x {paid.watts_per_gpu:,.0f} W x 1.35 (server) x PUE {paid.power.pue} x hours"
    made.append(Line("cost", "energy", f"{paid.energy_kwh.value:,.2f} kWh", energy, "Uptime Institute 2024; EIA 2024"))
    return made


def _gib(size: int) -> str:
    return f"{size / _GIB:,.2f} GiB"


def _seconds(value: float) -> str:
    return f"{value * 1000:,.1f} ms" if value < 10 else f"{value:,.2f} s"
