"""TensorBoard: event files, by default in `tensorboard` in the run's folder. A resumed run purges later steps."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from michelangelo.llm.finetune.recording import SinkError
from michelangelo.llm.finetune.trackers.tracker_run import Identity, Outcome, Scalar

__all__ = ["TensorboardRun", "open_run"]


class TensorboardRun:
    """A writer of event files. Parameters, alerts and results are texts; results that are numbers are scalars, too."""

    def __init__(self, writer: Any, run_id: str, step: int) -> None:
        self.run_id = run_id
        self._writer = writer
        self._step = step

    def parameters(self, values: Mapping[str, Scalar]) -> None:
        rows = "\n".join(f"| {key} | {_cell(value)} |" for key, value in values.items())
        with _errors():
            self._writer.add_text("parameters", f"| name | value |\n| --- | --- |\n{rows}", self._step)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        with _errors():
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)

    def alert(self, step: int, kind: str, message: str) -> None:
        with _errors():
            self._writer.add_text(f"alerts/{kind}", message, step)

    def summary(self, step: int, values: Mapping[str, Scalar]) -> None:
        with _errors():
            self._writer.add_text("summary", json.dumps(values), step)
            for name, value in values.items():
                if not isinstance(value, str):
                    self._writer.add_scalar(f"summary/{name}", float(value), step)

    def end(self, outcome: Outcome) -> None:
        with _errors():
            self._writer.close()


def open_run(identity: Identity) -> TensorboardRun:
    folder = Path(identity.address) if identity.address else identity.folder / "tensorboard"
    with _errors():
        from torch.utils.tensorboard import SummaryWriter

        writer = SummaryWriter(str(folder), purge_step=identity.step + 1 if identity.step else None)
    return TensorboardRun(writer, str(folder), identity.step)


def _cell(value: Scalar) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except (OSError, ImportError, ValueError) as e:
        raise SinkError(f"TensorBoard: {e}") from e
