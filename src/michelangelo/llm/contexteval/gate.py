"""The gate that was fitted: a weighted sum of features, a threshold, and what was promised when it was chosen.

Saved as one JSON file that names what it holds for: the embedder and the corpus. With another embedder it refuses to
decide; with another corpus it decides and promises nothing. It is made by `calibration`, and fits nothing itself.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, get_args

from michelangelo import errors
from michelangelo.llm.contexteval import features, questions
from michelangelo.llm.contexteval.deciding import Decision
from michelangelo.llm.contexteval.questions import Question
from michelangelo.llm.contexteval.retrieval import Retrieval
from michelangelo.llm.contexteval.risk import Guarantee, Rate

__all__ = ["FILE_NAME", "FORMAT", "FittedGate", "Promise", "Weight", "load", "save"]

FORMAT: Final = "contexteval-gate/1"
FILE_NAME: Final = "gate.json"
"""Where a corpus' folder keeps its gate."""
_MAX_BYTES: Final = 50_000_000


@dataclass(frozen=True, slots=True)
class Weight:
    """score = 1 / (1 + exp(−bias − Σ weight · (feature − center) / scale)); weight ≥ 0 and scale > 0, so that a
    feature which grows never lowers the score."""

    feature: str
    weight: float
    center: float = 0.0
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Promise:
    """What the threshold keeps: the rate (see `risk`) is at most `risk`. questions, errors: of the calibration split,
    those that count for the rate, and those that went wrong; bound: what they show at `confidence`. next_questions:
    see `risk.allowed_errors`."""

    rate: Rate
    risk: float
    confidence: float
    guarantee: Guarantee
    next_questions: int
    questions: int
    errors: int
    bound: float


@dataclass(frozen=True, slots=True)
class FittedGate:
    """Pure and safe to share. fitted_on, calibrated_on: digests of the questions that weights and threshold have seen
    (`questions.digest`), so that an evaluation can leave them out. coverage: share of the calibration split's
    answerable questions that it answered."""

    weights: tuple[Weight, ...]
    bias: float
    threshold: float
    promise: Promise
    embedder: str
    corpus_digest: str
    coverage: float = 0.0
    fitted_on: tuple[str, ...] = ()
    calibrated_on: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """`fitted-` and the beginning of the digest of all that decides."""
        parts = [asdict(one) for one in self.weights]
        data = json.dumps([FORMAT, parts, self.bias, self.threshold, self.embedder], sort_keys=True)
        return f"fitted-{hashlib.sha256(data.encode()).hexdigest()[:12]}"

    def score(self, values: Mapping[str, float]) -> float:
        """0 … 1, rises with every feature."""
        total = self.bias + math.fsum(
            one.weight * (values[one.feature] - one.center) / one.scale for one in self.weights
        )
        return 1.0 / (1.0 + math.exp(-total)) if total >= 0 else math.exp(total) / (1.0 + math.exp(total))

    def decide(self, question: str, retrieval: Retrieval) -> Decision:
        """Raises CalibrationError for a retrieval by another embedder, as its scores say something else."""
        if retrieval.embedder != self.embedder:
            raise errors.CalibrationError(
                f"the gate was fitted for the embedder {self.embedder}, and this corpus has {retrieval.embedder}: "
                "fit one with mactl contexteval calibrate"
            )
        values = features.compute(retrieval)
        score = self.score(values) if retrieval.passages else 0.0
        is_promised = retrieval.corpus_digest == self.corpus_digest
        return Decision(
            answer=bool(retrieval.passages) and score >= self.threshold,
            score=score,
            threshold=self.threshold,
            gate=self.name,
            features=values,
            risk=self.promise.risk if is_promised else None,
            confidence=self.promise.confidence if is_promised else None,
            reason="" if retrieval.passages else "nothing was found",
        )

    def has_seen(self, question: Question) -> bool:
        """Whether weights or threshold were fitted with it."""
        digest = questions.digest(question)
        return digest in self.fitted_on or digest in self.calibrated_on

    def warnings(self, corpus_digest: str) -> list[str]:
        """What to tell who uses it with this corpus; empty: the promise holds."""
        if corpus_digest == self.corpus_digest:
            return []
        return [
            f"the gate was fitted for corpus {self.corpus_digest[:12]}, and this is {corpus_digest[:12]}: it promises "
            "nothing here until mactl contexteval calibrate has fitted it again"
        ]

    def to_dict(self) -> dict[str, Any]:
        """As it is saved."""
        return {"format": FORMAT, "name": self.name, **asdict(self)}


def save(gate: FittedGate, path: str | Path) -> None:
    """Write the gate's file; it is there as a whole or not at all. Raises CalibrationError where it cannot be."""
    path = Path(path)
    text = json.dumps(gate.to_dict(), indent=1, ensure_ascii=False) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".gate-", delete=False, encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.chmod(file.name, 0o644)
            os.replace(file.name, path)
        except OSError:
            os.unlink(file.name)
            raise
    except OSError as e:
        raise errors.CalibrationError(f"the gate cannot be written to {path}: {e.strerror or e}") from e


def load(path: str | Path) -> FittedGate:
    """Raises CalibrationError for a file that is no gate of this version, and names what is wrong with it."""
    try:
        if (size := Path(path).stat().st_size) > _MAX_BYTES:
            raise errors.CalibrationError(f"{path} has {size} bytes, and no gate is that large")
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as e:
        raise errors.CalibrationError(
            f"the gate {path} cannot be read ({e.strerror or e}): fit one with mactl contexteval calibrate"
        ) from e
    except (ValueError, RecursionError) as e:
        raise errors.CalibrationError(f"{path} is no gate: {e}") from e
    form = data.get("format") if isinstance(data, dict) else None
    if form != FORMAT:
        raise errors.CalibrationError(f"{path} has the format {form!r}, and this version reads {FORMAT}: fit it again")
    gate = _gate(data, path)
    if data.get("name") != gate.name:
        raise errors.CalibrationError(f"{path} was changed by hand: its name is not that of its weights. Fit it again")
    return gate


def _gate(data: Mapping[str, Any], path: str | Path) -> FittedGate:
    try:
        promise = data["promise"]
        gate = FittedGate(
            weights=tuple(
                Weight(str(one["feature"]), float(one["weight"]), float(one["center"]), float(one["scale"]))
                for one in data["weights"]
            ),
            bias=float(data["bias"]),
            threshold=float(data["threshold"]),
            promise=Promise(
                rate=promise["rate"],
                risk=float(promise["risk"]),
                confidence=float(promise["confidence"]),
                guarantee=promise["guarantee"],
                next_questions=int(promise["next_questions"]),
                questions=int(promise["questions"]),
                errors=int(promise["errors"]),
                bound=float(promise["bound"]),
            ),
            embedder=str(data["embedder"]),
            corpus_digest=str(data["corpus_digest"]),
            coverage=float(data["coverage"]),
            fitted_on=tuple(map(str, data["fitted_on"])),
            calibrated_on=tuple(map(str, data["calibrated_on"])),
            details=dict(data["details"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise errors.CalibrationError(f"{path} is a damaged gate ({type(e).__name__}: {e}): fit it again") from e
    if problems := _problems(gate):
        raise errors.CalibrationError(f"{path} is a damaged gate: {'; '.join(problems)}. Fit it again")
    return gate


def _problems(gate: FittedGate) -> list[str]:
    found = [f"feature {one.feature!r} is not known" for one in gate.weights if one.feature not in features.NAMES]
    found += [
        f"the weight of {one.feature} must be at least 0, and its scale above 0"
        for one in gate.weights
        if not (one.weight >= 0 and one.scale > 0 and math.isfinite(one.weight + one.center + one.scale))
    ]
    if not (math.isfinite(gate.bias) and gate.threshold >= 0.0):
        found.append("bias and threshold must be numbers, the threshold at least 0")
    if gate.promise.rate not in get_args(Rate) or gate.promise.guarantee not in get_args(Guarantee):
        found.append(f"the promise {gate.promise.rate!r}, {gate.promise.guarantee!r} is not known")
    return found
