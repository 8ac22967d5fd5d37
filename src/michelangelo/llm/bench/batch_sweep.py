"""From batch to batch: how the rate grows, what share of the hardware it uses, and what bounds it.

Two questions that are often taken for one. Of the kernels: are matrix products bound by what they read or by what they
compute? The roofline of Williams et al. 2009 (doi 10.1145/1498765.1498785) says: weights are read once whatever the
batch is, so a larger batch brings more operations per byte. Of the run: would more memory, for a larger batch, make it
faster? The rate's growth from the last batch but one to the last says; training is called memory-bound where it grows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from michelangelo.llm.bench import predicting, probing
from michelangelo.llm.bench.experiment import Deadline, Outcome, Point, Quantity, Series, Task, filled
from michelangelo.llm.training_setup import TrainingSetup

__all__ = ["CLAIM", "SUMMARY", "measure", "predict"]

SUMMARY: Final = "tokens/s and MFU from batch 1 to the largest; memory-bound or compute-bound"
CLAIM: Final = (
    "a small model on few GPUs is bound by compute, a large one by memory, so that a larger batch helps the large one "
    "(https://www.uber.com/blog/open-source-and-in-house-how-uber-optimizes-llm-training/)"
)
_SATURATED: Final = 0.95
"""Of the best rate: from there on a larger batch brings little."""
_GROWS: Final = 1.05
"""Per doubling of the batch: below it, a larger batch is not worth memory."""
_GROWTH: Final = "growth of the rate at the last doubling"
_TRAFFIC_PHASES: Final = ("elementwise", "logits", "attention_scores", "optimizer", "adapters", "dequantize")
"""Of the plan's phases, those whose time is that of bytes."""


def predict(task: Task) -> Sequence[Quantity]:
    plan = predicting.Plan(task)
    found = []
    for batch in _batches(task, plan):
        expected = plan.of(_setup(task).replace(micro_batch=batch))
        case = f"batch {batch}"
        found.append(Quantity(case=case, name="speed", unit="tokens/s", predicted=expected.tokens_per_second))
        found.append(Quantity(case=case, name="MFU", unit="share", predicted=expected.mfu))
        found.append(Quantity(case=case, name="memory", unit="bytes", predicted=float(expected.allocated_bytes)))
    speeds = {int(q.case.removeprefix("batch ")): q.predicted for q in found if q.name == "speed" and q.predicted}
    growth = Quantity(case="largest batch", name=_GROWTH, unit="times", predicted=_growth(speeds))
    return [*found, growth] if len(_batches(task, plan)) > 1 else found


def measure(task: Task, predicted: Sequence[Quantity], deadline: Deadline) -> Outcome:
    plan, probe = predicting.Plan(task), probing.Probe(task)
    measured: dict[tuple[str, str], float | None] = {}
    rates: dict[int, float] = {}
    left_out = []
    for batch in _batches(task, plan):
        if deadline.is_over:
            left_out.append(f"batch {batch}")
            continue
        found = probe.measure(_setup(task).replace(micro_batch=batch))
        if found.out_of_memory:
            left_out.append(f"batch {batch}, which does not fit")
            break
        rates[batch] = found.tokens_per_second
        case = f"batch {batch}"
        measured[case, "speed"] = found.tokens_per_second
        measured[case, "MFU"] = found.mfu
        measured[case, "memory"] = float(found.allocated_bytes)
    if not left_out and len(rates) > 1:
        measured["largest batch", _GROWTH] = _growth(rates)
    quantities = filled(predicted, measured)
    return Outcome(
        quantities=quantities,
        series=_series(quantities),
        conclusions=_conclusions(task, plan, rates),
        measurements=probe.all(),
        left_out=left_out,
    )


def _batches(task: Task, plan: predicting.Plan) -> list[int]:
    """1, 2, 4 … up to the largest that the plan says fits."""
    largest = plan.largest_batch(_setup(task))
    batches = [1]
    while batches[-1] * 2 <= largest and len(batches) < (3 if task.quick else 8):
        batches.append(batches[-1] * 2)
    return batches


def _setup(task: Task) -> TrainingSetup:
    on_gpu = task.device == "cuda"
    return TrainingSetup(
        method="full",
        objective="pretrain",
        sequence_length=2048 if on_gpu else 64,
        precision="bf16_mixed" if on_gpu else "fp32",
        compiled=on_gpu,
    )


def _growth(rates: Mapping[int, float]) -> float | None:
    """From the last batch but one to the last."""
    if len(rates) < 2:
        return None
    before, last = sorted(rates)[-2:]
    return rates[last] / rates[before]


def _series(quantities: Sequence[Quantity]) -> list[Series]:
    labels = {"speed": "tokens/s", "MFU": "MFU", "memory": "memory (GB)"}
    made = []
    for name, label in labels.items():
        unit = 1e9 if name == "memory" else 1.0
        points = [
            Point(
                float(q.case.removeprefix("batch ")),
                None if q.measured is None else q.measured / unit,
                None if q.predicted is None else q.predicted / unit,
            )
            for q in quantities
            if q.name == name and (q.measured is not None or q.predicted is not None)
        ]
        if points:
            made.append(Series(name=name, x_label="batch (sequences)", y_label=label, points=points, x_is_log=True))
    return made


def _conclusions(task: Task, plan: predicting.Plan, rates: Mapping[int, float]) -> list[str]:
    if not rates:
        return []
    best = max(rates.values())
    knee = min(batch for batch, rate in rates.items() if rate >= _SATURATED * best)
    said = [f"{_SATURATED:.0%} of the best rate, {best:,.0f} tokens/s, are reached at batch {knee}."]
    if (growth := _growth(rates)) is not None:
        bound = (
            "memory-bound: a larger batch would still be faster, so memory that is saved is speed"
            if growth > _GROWS
            else "compute-bound: a larger batch would bring little, so faster kernels help and more memory does not"
        )
        said.append(f"The last doubling of the batch makes it {growth:.2f} times as fast. The run is {bound}.")
    return [*said, *_roofline(task, plan, rates)]


def _roofline(task: Task, plan: predicting.Plan, rates: Mapping[int, float]) -> list[str]:
    if plan.hardware is None:
        return ["What bounds the matrix products is not said for a device that is not in the planner's catalogue."]
    said = []
    ridge = plan.hardware.training_peak("bf16") / plan.hardware.bandwidth
    for batch in sorted({min(rates), max(rates)}):
        setup = _setup(task).replace(micro_batch=batch)
        # A weight of 2 bytes is read once for each product of its, which is 2 FLOPs per token.
        intensity = 2.0 * batch * setup.sequence_length / 2.0
        bound = "compute" if intensity > ridge else "memory traffic"
        said.append(
            f"At batch {batch} a byte of weights that is read serves {intensity:,.0f} FLOPs; the device's ridge is at "
            f"{ridge:,.0f}: its matrix products are bound by {bound}."
        )
        speed = plan.throughput(setup)
        if speed is not None:
            share = sum(speed.phase(name) for name in _TRAFFIC_PHASES) / speed.seconds_per_step
            said.append(f"By the plan, {share:.0%} of that step are operations bound by memory traffic.")
    return said
