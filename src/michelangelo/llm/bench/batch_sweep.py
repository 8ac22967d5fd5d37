"""From batch to batch: how the rate grows, what share of the hardware it uses, and what bounds it.

A step is bound by memory traffic where the bytes that it moves take longer than its operations, and by compute above
that: the roofline of Williams et al. 2009 (doi 10.1145/1498765.1498785). Weights are read once whatever the batch is,
so a larger batch brings more operations per byte.
"""

from __future__ import annotations

from collections.abc import Sequence
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


def predict(task: Task) -> Sequence[Quantity]:
    plan = predicting.Plan(task)
    found = []
    for batch in _batches(task, plan):
        expected = plan.of(_setup(task).replace(micro_batch=batch))
        case = f"batch {batch}"
        found.append(Quantity(case=case, name="speed", unit="tokens/s", predicted=expected.tokens_per_second))
        found.append(Quantity(case=case, name="MFU", unit="share", predicted=expected.mfu))
        found.append(Quantity(case=case, name="memory", unit="bytes", predicted=float(expected.allocated_bytes)))
    return found


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


def _series(quantities: Sequence[Quantity]) -> list[Series]:
    points = [
        Point(float(q.case.removeprefix("batch ")), q.measured, q.predicted) for q in quantities if q.name == "speed"
    ]
    return [Series(name="speed", x_label="batch (sequences)", y_label="tokens/s", points=points, x_is_log=True)]


def _conclusions(task: Task, plan: predicting.Plan, rates: dict[int, float]) -> list[str]:
    if not rates:
        return []
    best = max(rates.values())
    knee = min(batch for batch, rate in rates.items() if rate >= _SATURATED * best)
    said = [f"{_SATURATED:.0%} of the best rate, {best:,.0f} tokens/s, are reached at batch {knee}."]
    if plan.hardware is None:
        return [*said, "What bounds a step is not said for a device that is not in the catalogue."]
    ridge = plan.hardware.training_peak("bf16") / plan.hardware.bandwidth
    for batch in (min(rates), max(rates)):
        setup = _setup(task).replace(micro_batch=batch)
        # Each weight is read for the forward and for both products of the backward pass, 2 bytes each.
        intensity = 2.0 * batch * setup.sequence_length / 2.0
        bound = "compute" if intensity > ridge else "memory traffic"
        said.append(
            f"At batch {batch} a weight that is read serves {intensity:,.0f} FLOP a byte; the device's ridge is at "
            f"{ridge:,.0f}: its matrix products are bound by {bound}."
        )
    return said
