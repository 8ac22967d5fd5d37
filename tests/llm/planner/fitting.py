"""How the constants of `kernels` were chosen within what their sources allow: robust least squares over published rows,
each source weighted alike, each constant held to its literature. No test; run it to see the errors without each source:

    python -m tests.llm.planner.fitting
"""

from __future__ import annotations

import collections
import dataclasses
import math
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
from tests.llm.planner import published
from tests.llm.planner.published import Case

from michelangelo.llm.planner import kernels
from michelangelo.llm.planner.kernels import Rates

CONSTANTS: tuple[tuple[str, float, float], ...] = (
    ("matmul.ampere", 0.80, 0.15),
    ("matmul.hopper", 0.68, 0.15),
    ("matmul.ada", 0.85, 0.05),
    ("matmul.blackwell", 0.66, 0.05),
    ("matmul_traffic", 0.30, 0.5),
    ("matmul_fp8", 0.80, 0.2),
    ("attention.triton.ampere", 0.33, 0.3),
    ("attention.triton.hopper", 0.20, 0.3),
    ("attention.flash2.ampere", 0.58, 0.15),
    ("attention.flash2.hopper", 0.36, 0.15),
    ("attention.flash3.hopper", 0.60, 0.15),
    ("attention_ramp", 400.0, 0.3),
    ("narrow_heads", 0.85, 0.15),
    ("traffic", 0.86, 0.03),
    ("optimizer_traffic", 0.70, 0.2),
    ("link", 0.75, 0.12),
    ("network", 0.70, 0.2),
    ("exposed", 0.40, 0.35),
    ("exposed_tensor", 0.60, 0.4),
    ("wave", 0.50, 0.7),
    ("power", 0.35, 0.4),
)
"""Name, what the literature says, and how far it may be off (as a natural logarithm)."""
_ERROR = 0.08
_ROUNDS = 8
_STEP = 1e-3


def fit(cases: Sequence[Case]) -> Rates:
    """Gauss-Newton with weights that let outliers go (Cauchy's loss is rougher, Huber's is what this is)."""
    counts = collections.Counter(case.source for case in cases)
    weights = np.array([math.sqrt(min(6, counts[case.source]) / counts[case.source]) for case in cases]) / _ERROR
    priors = np.array([1 / spread for _, _, spread in CONSTANTS])
    at = np.zeros(len(CONSTANTS))
    for _ in range(_ROUNDS):
        errors = _errors(cases, at)
        slopes = np.stack([(_errors(cases, at + _STEP * unit) - errors) / _STEP for unit in np.eye(len(at))], axis=1)
        robust = np.sqrt(1 / np.maximum(1.0, np.abs(errors * weights)))
        scale = weights * robust
        left = np.vstack([slopes * scale[:, None], np.diag(priors)])
        right = np.concatenate([-errors * scale, -at * priors])
        at = at + np.clip(np.linalg.lstsq(left, right, rcond=None)[0], -0.3, 0.3)
    return _rates(at)


def held_out() -> dict[str, list[float]]:
    """Errors of each source's rows, predicted with constants that were chosen without it."""
    found = {}
    for source in published.document()["sources"]:
        mine = [case for case in published.cases() if case.source == source]
        rates = fit([case for case in published.cases() if case.source != source])
        found[source] = [case.error(rates) for case in mine]
    return found


def _errors(cases: Sequence[Case], at: Any) -> Any:
    rates = _rates(at)
    return np.array([case.error(rates) for case in cases])


def _rates(at: Any) -> Rates:
    values = {field.name: getattr(kernels.RATES, field.name) for field in dataclasses.fields(Rates)}
    values["matmul"] = dict(values["matmul"])
    values["attention"] = {kernel: dict(shares) for kernel, shares in values["attention"].items()}
    for (name, start, _), moved in zip(CONSTANTS, at, strict=True):
        *path, last = name.split(".")
        place: Any = values
        for part in path:
            place = place[part]
        place[last] = start * math.exp(moved)
    return Rates(**values)


if __name__ == "__main__":
    everything: list[float] = []
    for source, errors in held_out().items():
        sizes = [abs(error) for error in errors]
        everything += sizes
        print(f"{source:24} {len(sizes):3} rows, median {statistics.median(sizes):.1%}, largest {max(sizes):.1%}")
    everything.sort()
    print(f"all: median {statistics.median(everything):.1%}, 90 % within {everything[int(0.9 * len(everything))]:.1%}")
