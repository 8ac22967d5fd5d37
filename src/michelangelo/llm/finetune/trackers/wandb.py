"""Weights & Biases: offline files (`wandb sync` sends them later) by default, or a server, with W&B's own keys."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from michelangelo.llm.finetune.recording import SinkError
from michelangelo.llm.finetune.trackers import reaching
from michelangelo.llm.finetune.trackers.tracker_run import Identity, Outcome, Scalar

__all__ = ["WandbRun", "open_run"]

_STEP: Final = "step"
_INIT_SECONDS: Final = 30.0


class WandbRun:
    """A run of a project. The step is a metric of its own, as W&B's own must never go back, and a resumed run does."""

    def __init__(self, run: Any, run_id: str) -> None:
        self.run_id = run_id
        self._run = run

    def parameters(self, values: Mapping[str, Scalar]) -> None:
        with _errors():
            self._run.config.update(dict(values), allow_val_change=True)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        with _errors():
            self._run.log({_STEP: step, **values})

    def alert(self, step: int, kind: str, message: str) -> None:
        with _errors():
            self._run.alert(title=kind, text=f"step {step}: {message}", level="WARN")

    def summary(self, step: int, values: Mapping[str, Scalar]) -> None:
        with _errors():
            self._run.summary.update({f"summary.{key}": value for key, value in values.items()})

    def end(self, outcome: Outcome) -> None:
        with _errors():
            self._run.finish(exit_code=1 if outcome == "Failed" else 0)


def open_run(identity: Identity) -> WandbRun:
    """A new run, or the interrupted one by its id."""
    is_server = "://" in identity.address
    if not identity.offline:
        reaching.check(identity.address, "W&B")
    folder = identity.folder if is_server or not identity.address else Path(identity.address)
    run_id = identity.run_id or secrets.token_hex(4)
    with _errors():
        import wandb

        folder.mkdir(parents=True, exist_ok=True)
        settings = wandb.Settings(
            mode="offline" if identity.offline else "online",
            console="off",
            silent=True,
            init_timeout=_INIT_SECONDS,
            disable_git=True,
            disable_code=True,
            x_disable_stats=True,
            **({"base_url": identity.address} if is_server else {}),
        )
        run = wandb.init(
            project=identity.project, name=identity.name, id=run_id, resume="allow", dir=folder, settings=settings
        )
        run.define_metric(_STEP)
        run.define_metric("*", step_metric=_STEP)
    return WandbRun(run, run_id)


@contextmanager
def _errors() -> Iterator[None]:
    try:
        import wandb
    except ImportError as e:
        raise SinkError(f"W&B cannot be loaded: {e}") from e
    try:
        yield
    except (wandb.Error, OSError, ValueError) as e:
        raise SinkError(f"W&B: {str(e).splitlines()[0]}") from e
