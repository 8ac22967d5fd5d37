"""Which tracker a configuration means. Its library is looked for at once, and loaded in the tracker's own thread."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from michelangelo import errors
from michelangelo.llm.finetune.config import TrackerConfig
from michelangelo.llm.finetune.recording import Sink
from michelangelo.llm.finetune.trackers import background, comet, mlflow, tensorboard, wandb
from michelangelo.llm.finetune.trackers.tracker_run import Identity, TrackerRun

__all__ = ["make"]

_DEFAULT_PROJECT: Final = "michelangelo"
_OPENERS: Final[Mapping[str, tuple[str, Callable[[Identity], TrackerRun]]]] = {
    "mlflow": ("mlflow", mlflow.open_run),
    "comet": ("comet_ml", comet.open_run),
    "tensorboard": ("tensorboard", tensorboard.open_run),
    "wandb": ("wandb", wandb.open_run),
}


def make(config: TrackerConfig, run_folder: Path) -> Sink:
    """A sink that hands everything to the tracker in the background. Raises SettingsError where its package is missing:
    before training begins, as nothing would be recorded."""
    package, opener = _OPENERS[config.kind]
    if importlib.util.find_spec(package) is None:
        raise errors.SettingsError(
            f"trackers: {config.kind} needs the package {package}, which is not installed: "
            "pip install 'michelangelo-oss[trackers]', or take the tracker out of the configuration"
        )
    identity = Identity(
        project=config.project or _DEFAULT_PROJECT,
        name=config.name or run_folder.name,
        address=config.address,
        offline=config.offline,
        folder=run_folder,
    )

    def open_run(run_id: str, step: int) -> TrackerRun:
        return opener(dataclasses.replace(identity, run_id=run_id, step=step))

    which = hashlib.sha256(config.model_dump_json().encode()).hexdigest()[:8]
    memory = run_folder / "trackers" / f"{config.kind}-{which}.json"
    return background.BackgroundTracker(config.kind, open_run, memory)
