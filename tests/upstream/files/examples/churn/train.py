"""The training task, with a result of its own type."""

from dataclasses import dataclass, field

import michelangelo.uniflow.core as uniflow


@dataclass
class Metrics:
    accuracy: float
    counts: dict = field(default_factory=dict)


@dataclass
class TrainResult:
    path: str
    metrics: Metrics


def _share(rows: list) -> float:
    return sum(1 for _, label in rows if label) / len(rows)


@uniflow.task(alias="train_model", retry_attempts=1)
def train(train_data: list, validation_data: list, threshold: float = 0.5) -> TrainResult:
    guess = _share(train_data) > threshold
    hits = sum(1 for _, label in validation_data if label == guess)
    return TrainResult(
        path=f"{uniflow.task_context.alias}-{threshold}",
        metrics=Metrics(accuracy=hits / len(validation_data), counts={"validation": len(validation_data)}),
    )
