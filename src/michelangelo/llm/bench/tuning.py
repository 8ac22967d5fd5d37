"""The plan's best configurations tried on the hardware itself; the fastest that fits, and what the plan learns of it.

Each try is some steps on random weights in a process of its own. What was off, by which share, becomes the calibration
of later plans on that hardware.
"""

from __future__ import annotations

import datetime
import json
import math
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from michelangelo import errors
from michelangelo.llm import model_shape
from michelangelo.llm.bench import tasks
from michelangelo.llm.finetune import prediction
from michelangelo.llm.planner import calibration, hardware, memory, search, throughput
from michelangelo.llm.planner import plan as planning
from michelangelo.llm.planner.hardware import Hardware
from michelangelo.llm.planner.search import Candidate
from michelangelo.llm.training_setup import TrainingSetup

__all__ = ["Device", "Tried", "Tuned", "tune"]

Device: TypeAlias = Literal["auto", "cpu", "cuda"]
_TRIER: Final = "michelangelo.llm.bench.trying"
_MICRO_BATCHES: Final = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
_TRY_SECONDS: Final = 600.0
_RATIOS: Final = (0.25, 4.0)
"""Beyond these a ratio says that something else is measured than what is planned, and teaches nothing: the calibration
refuses it."""


@dataclass(frozen=True, slots=True)
class Tried:
    """One setup, as planned and as measured. Rates in tokens/s, memory in bytes; 0: not measured."""

    setup: TrainingSetup
    planned_rate: float
    planned_bytes: int
    rate: float
    allocated_bytes: int
    mfu: float
    problem: str = ""
    """Why there is no rate: out of memory, or what the try said."""

    def to_dict(self) -> dict[str, Any]:
        """JSON; what is not known is null."""
        known = {
            name: getattr(self, name) for name in ("planned_rate", "planned_bytes", "rate", "allocated_bytes", "mfu")
        }
        shown = {name: value if math.isfinite(value) and value else None for name, value in known.items()}
        return {"setup": self.setup.to_dict(), **shown, "problem": self.problem}


@dataclass(frozen=True, slots=True)
class Tuned:
    """What came of it."""

    model: str
    hardware: Hardware
    tries: tuple[Tried, ...]
    num_planned: int
    """Setups that the plan judged."""
    observations: int
    """Runs that the calibration of this hardware has now."""

    @property
    def best(self) -> Tried:
        """The fastest that fits. Raises DeviceMemoryError if none did."""
        fitting = [tried for tried in self.tries if tried.rate]
        if not fitting:
            raise errors.DeviceMemoryError(
                f"{self.model}: none of the {len(self.tries)} tries fits on {self.hardware.name}; "
                "take shorter sequences, or --method lora or qlora"
            )
        return max(fitting, key=lambda tried: tried.rate)

    def plan(self) -> planning.Plan:
        """Of the best one."""
        return planning.make(
            model_shape.load(self.model), self.best.setup, self.hardware, planning.Assumptions(tokens=1e8)
        )


def tune(
    model: str,
    base: TrainingSetup,
    *,
    calibration_file: Path,
    device: Device = "auto",
    tries: int = 6,
    steps: int = 3,
    report: Callable[[Tried], None] = lambda _: None,
) -> Tuned:
    """`base`: method, sequence length, precision, objective; the rest is chosen. `report` hears of each try.

    Raises ModelError, SettingsError for a device that the catalogue has not.
    """
    kind = _hardware(device)
    shape = model_shape.load(model)
    found = search.run(shape, _space(base, kind), [kind], planning.Assumptions(tokens=1e8))
    chosen = _chosen(found.candidates, tries)
    place = str(Path(model).absolute()) if Path(model).exists() else model
    tried = []
    for candidate in chosen:
        made = _try(place, shape, candidate, kind, device=device, steps=steps)
        tried.append(made)
        report(made)
    for made in tried:
        _learn(calibration_file, model, kind, made)
    known = sum(one.hardware == kind.name for one in calibration.load(calibration_file).observations)
    return Tuned(model, kind, tuple(tried), found.num_tried, known)


def _hardware(device: Device) -> Hardware:
    found = tasks.resolve_device(device)
    name = prediction.device_name(found)
    known = hardware.load("cpu") if found.type == "cpu" else hardware.of_device(name)
    if known is None:
        raise errors.SettingsError(
            f"{name}: is not in the planner's catalogue (mactl llm plan --help), so there is no plan to tune"
        )
    return known


def _space(base: TrainingSetup, kind: Hardware) -> search.Space:
    on_gpu = kind.family != "cpu"
    return search.Space(
        base=base,
        methods=(base.method,),
        shardings=("none",),
        offloads=("none",),
        micro_batches=_MICRO_BATCHES if on_gpu else _MICRO_BATCHES[:6],
        gpus=(1,),
        cross_entropies=("chunked",),
        optimizers=(base.optimizer,),
        compiled=(True,) if on_gpu else (False,),
    )


def _chosen(candidates: Sequence[Candidate], tries: int) -> list[Candidate]:
    """The fastest by the plan, at most two of a kind of recomputation first: its error is alike within a kind."""
    ordered = sorted(candidates, key=lambda candidate: -candidate.tokens_per_second)
    kinds: dict[str, int] = {}
    first: list[Candidate] = []
    rest: list[Candidate] = []
    for candidate in ordered:
        kinds[candidate.setup.checkpointing] = kinds.get(candidate.setup.checkpointing, 0) + 1
        (first if kinds[candidate.setup.checkpointing] <= 2 else rest).append(candidate)
    return [*first, *rest][:tries]


def _try(
    model: str, shape: model_shape.ModelShape, candidate: Candidate, kind: Hardware, *, device: Device, steps: int
) -> Tried:
    setup = candidate.setup
    planned = Tried(
        setup,
        throughput.estimate(shape, setup, kind).tokens_per_second,
        memory.estimate(shape, setup).allocated,
        rate=0.0,
        allocated_bytes=0,
        mfu=0.0,
    )
    request = {"model": model, "setup": setup.to_dict(), "device": device, "memory_cap_bytes": 0}
    answer = _ask({**request, "steps": steps, "warm_up": 1})
    if problem := answer.get("error") or ("out of memory" if answer.get("out_of_memory") else ""):
        return replace(planned, problem=problem)
    return replace(
        planned,
        rate=answer["tokens_per_second"],
        allocated_bytes=answer["allocated_bytes"],
        mfu=answer["mfu"] or 0.0,
    )


def _ask(request: Mapping[str, Any]) -> dict[str, Any]:
    try:
        done = subprocess.run(
            [sys.executable, "-m", _TRIER],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            check=False,
            timeout=_TRY_SECONDS,
        )
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        return {"error": f"took more than {_TRY_SECONDS:.0f} s"}
    except (IndexError, ValueError):
        return {"error": (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1][:200]}
    return answer


def _learn(file: Path, model: str, kind: Hardware, tried: Tried) -> None:
    """Keeps what the try says of the plan; nothing where there was no rate, or one that is beyond belief."""
    if not tried.rate:
        return
    time_ratio = _believed(tried.planned_rate / tried.rate)
    memory_ratio = _believed(tried.allocated_bytes / tried.planned_bytes) if kind.family != "cpu" else 0.0
    if not time_ratio and not memory_ratio:
        return
    calibration.record(
        file,
        calibration.Observation(
            hardware=kind.name,
            regime=calibration.regime_of(tried.setup),
            model=model,
            memory_ratio=memory_ratio,
            time_ratio=time_ratio,
            date=datetime.datetime.now(datetime.UTC).date().isoformat(),
            versions={name: metadata.version(name) for name in ("torch", "michelangelo-oss")},
        ),
    )


def _believed(ratio: float) -> float:
    """0 where it teaches nothing."""
    low, high = _RATIOS
    return ratio if low <= ratio <= high else 0.0
