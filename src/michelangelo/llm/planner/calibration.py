"""What runs have taught about the planner's predictions: ratios of measured to predicted, per hardware, in a JSON file.

Later plans on that hardware multiply by the median ratio of the same regime (method, fusion, checkpointing, offload,
several GPUs), or else of all its runs. It is robust on purpose: medians, and bounds beyond which a ratio is taken for a
mistake in the measurement. Where the file is says the caller; measurements are made in `bench`.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from michelangelo import errors
from michelangelo.llm.training_setup import TrainingSetup

__all__ = ["FILE_NAME", "Calibration", "Factors", "Observation", "load", "record", "regime_of"]

FILE_NAME: Final = "calibration.json"
"""In the folder `llm` of the platform's home."""
_FORMAT: Final = 1
_MAX_BYTES: Final = 16 << 20
_KEPT: Final = 50
"""Observations per hardware and regime: the newest."""
_BOUNDS: Final = (0.25, 4.0)
"""Ratios outside are refused: something else was measured than was predicted."""
_FACTOR_BOUNDS: Final = {"memory": (0.7, 1.5), "time": (0.4, 2.5)}
_MIN_SPREAD: Final = 0.04
"""Half width of an interval that rests on measurements, as a natural logarithm: runs on one machine differ so much."""
_ENOUGH: Final = 3
"""Runs of a regime after which their own scatter makes the interval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One run. Ratios are measured / predicted, of predictions without calibration; 0: not measured."""

    hardware: str
    """Its name in the catalogue."""
    regime: str
    model: str = ""
    memory_ratio: float = 0.0
    time_ratio: float = 0.0
    """Of seconds per step: above 1, slower than predicted."""
    date: str = ""
    """YYYY-MM-DD."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Of what was measured with: torch, cuda, michelangelo."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Factors:
    """What a prediction is multiplied with."""

    memory: float = 1.0
    time: float = 1.0
    memory_runs: int = 0
    time_runs: int = 0
    time_spread: float | None = None
    """Half width at 90 %, as a natural logarithm; None: too few runs."""
    regime: str = ""
    """Empty: of all regimes of the hardware."""
    date: str = ""
    """Of the newest run."""

    @property
    def is_calibrated(self) -> bool:
        return self.memory_runs + self.time_runs > 0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Calibration:
    """All observations, oldest first."""

    observations: tuple[Observation, ...] = ()

    def factors(self, hardware: str, setup: TrainingSetup) -> Factors:
        """Of the same regime if it was measured, else of the hardware; all 1 if nothing was."""
        mine = [o for o in self.observations if o.hardware == hardware]
        same = [o for o in mine if o.regime == regime_of(setup)]
        memory, time = _ratios(same, "memory_ratio"), _ratios(same, "time_ratio")
        used = same
        if not same:
            memory, time, used = _ratios(mine, "memory_ratio"), _ratios(mine, "time_ratio"), mine
        if not used:
            return Factors()
        return Factors(
            memory=_median(memory, "memory"),
            time=_median(time, "time"),
            memory_runs=len(memory),
            time_runs=len(time),
            time_spread=_spread(time) if same else None,
            regime=regime_of(setup) if same else "",
            date=max(o.date for o in used),
        )


def regime_of(setup: TrainingSetup) -> str:
    """What runs have in common that are off by the same share."""
    parts = [
        setup.method,
        "compiled" if setup.compiled else "eager",
        f"checkpointing-{setup.checkpointing}",
        setup.attention,
    ]
    if setup.offload != "none":
        parts.append(f"offload-{setup.offload}")
    if setup.num_gpus > 1:
        parts.append("nodes" if setup.num_nodes > 1 else "gpus")
    return " ".join(parts)


def load(path: Path) -> Calibration:
    """Empty where there is no file. Raises SettingsError for one that is none of ours."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise errors.SettingsError(f"{path}: more than {_MAX_BYTES >> 20} MiB, so no calibration: remove it")
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Calibration()
    except OSError as e:
        raise errors.SettingsError(f"{path}: cannot be read: {e.strerror or e}") from e
    except ValueError as e:
        raise errors.SettingsError(f"{path}: is no JSON ({e}): remove it, and calibrate anew") from e
    try:
        if document["format"] != _FORMAT:
            raise errors.SettingsError(
                f"{path}: is of format {document['format']}, where {_FORMAT} is read: use the program that wrote it"
            )
        return Calibration(tuple(Observation(**one) for one in document["observations"]))
    except (KeyError, TypeError) as e:
        raise errors.SettingsError(f"{path}: is no calibration ({e}): remove it, and calibrate anew") from e


def record(path: Path, observation: Observation) -> Calibration:
    """Add one run: the file is replaced as a whole, and processes that record at once wait for each other. Raises
    ValueError for ratios that cannot be, SettingsError for a file that is none of ours or cannot be written."""
    for name in ("memory_ratio", "time_ratio"):
        ratio = getattr(observation, name)
        if ratio and not (math.isfinite(ratio) and _BOUNDS[0] <= ratio <= _BOUNDS[1]):
            raise ValueError(f"{name} {ratio}: between {_BOUNDS[0]} and {_BOUNDS[1]}, or 0 for not measured")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path):
            kept = Calibration(_newest([*load(path).observations, observation]))
            document = {"format": _FORMAT, "observations": [asdict(one) for one in kept.observations]}
            _replace(path, json.dumps(document, indent=1) + "\n")
    except OSError as e:
        raise errors.SettingsError(f"{path}: cannot be written: {e.strerror or e}") from e
    return kept


def _ratios(observations: Sequence[Observation], name: str) -> list[float]:
    return [getattr(one, name) for one in observations if getattr(one, name) > 0]


def _median(ratios: Sequence[float], kind: str) -> float:
    if not ratios:
        return 1.0
    low, high = _FACTOR_BOUNDS[kind]
    return min(high, max(low, statistics.median(ratios)))


def _spread(ratios: Sequence[float]) -> float | None:
    """Of the median absolute deviation, which one bad run does not move: 1.48 of it is a standard deviation."""
    if len(ratios) < _ENOUGH:
        return None
    logs = [math.log(ratio) for ratio in ratios]
    middle = statistics.median(logs)
    deviation = statistics.median(abs(value - middle) for value in logs)
    return max(_MIN_SPREAD, 1.645 * 1.4826 * deviation)


def _newest(observations: Sequence[Observation]) -> tuple[Observation, ...]:
    counts: dict[tuple[str, str], int] = {}
    kept = []
    for one in reversed(observations):
        key = (one.hardware, one.regime)
        counts[key] = counts.get(key, 0) + 1
        if counts[key] <= _KEPT:
            kept.append(one)
    return tuple(reversed(kept))


def _replace(path: Path, text: str) -> None:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.with_name(f".{path.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
