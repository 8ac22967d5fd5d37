"""The largest batch that fits, found by trying, against the one that the plan names without trying."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from michelangelo.llm.bench import predicting, probing
from michelangelo.llm.bench.experiment import Deadline, Outcome, Point, Quantity, Series, Task, filled
from michelangelo.llm.finetune import batch_finder
from michelangelo.llm.training_setup import TrainingSetup

__all__ = ["CLAIM", "SUMMARY", "measure", "predict"]

SUMMARY: Final = "the largest batch by trying, against the plan, and how many tries it takes"
CLAIM: Final = (
    "trainers that search halve the batch from a guess until it fits (accelerate's find_executable_batch_size)"
)
_CASES: Final = {"full": {"method": "full"}, "LoRA": {"method": "lora"}, "recomputed": {"checkpointing": "full"}}


def predict(task: Task) -> Sequence[Quantity]:
    plan = predicting.Plan(task)
    found = []
    for case in _CASES:
        largest = float(plan.largest_batch(_setup(task, case)))
        found.append(Quantity(case=case, name="largest batch", unit="sequences", predicted=largest))
        bound = float(batch_finder.max_tries(_limit(int(largest))))
        found.append(Quantity(case=case, name="tries", unit="tries", predicted=None, goal=bound, goal_is_upper=True))
    return found


def measure(task: Task, predicted: Sequence[Quantity], deadline: Deadline) -> Outcome:
    plan, probe = predicting.Plan(task), probing.Probe(task)
    measured: dict[tuple[str, str], float | None] = {}
    left_out, said, points = [], [], []
    for position, case in enumerate(_CASES):
        if deadline.is_over:
            left_out.append(case)
            continue
        setup = _setup(task, case)
        expected = plan.largest_batch(setup)
        found = batch_finder.find(
            lambda batch, setup=setup: probe.peak_bytes(setup.replace(micro_batch=batch)),  # type: ignore[misc]
            predicted=max(1, expected),
            limit=_limit(expected),
            capacity_bytes=plan.usable_bytes,
        )
        measured[case, "largest batch"] = float(found.batch)
        measured[case, "tries"] = float(len(found.tries))
        points.append(Point(float(position), float(found.batch), float(expected)))
        said.append(f"{case}: {found.batch} fit, the plan said {expected}; found in {len(found.tries)} tries.")
    series = [
        Series(name=case, x_label="", y_label="largest batch", points=(p,))
        for case, p in zip(_CASES, points, strict=False)
    ]
    return Outcome(
        quantities=filled(predicted, measured),
        series=series,
        conclusions=said,
        measurements=probe.all(),
        left_out=left_out,
    )


def _limit(expected: int) -> int:
    return max(8, 2 * expected)


def _setup(task: Task, case: str) -> TrainingSetup:
    on_gpu = task.device == "cuda"
    plain = TrainingSetup(
        method="full",
        objective="pretrain",
        sequence_length=4096 if on_gpu else 128,
        precision="bf16_mixed" if on_gpu else "fp32",
    )
    return plain.replace(**_CASES[case])
