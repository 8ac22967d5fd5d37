"""Comet: offline archives (`comet upload` sends them later) by default, or Comet's server, with Comet's own keys.

Nothing is logged automatically, so it does not matter that torch is loaded before comet_ml, which Comet's hooks do not
like.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from michelangelo.llm.finetune.recording import SinkError
from michelangelo.llm.finetune.trackers import reaching
from michelangelo.llm.finetune.trackers.tracker_run import Identity, Outcome, Scalar

__all__ = ["CometRun", "open_run"]

_NOTHING_AUTOMATIC: Final[Mapping[str, Any]] = {
    "display_summary_level": 0,
    "log_code": False,
    "log_graph": False,
    "auto_param_logging": False,
    "auto_metric_logging": False,
    "auto_output_logging": False,
    "log_git_metadata": False,
    "log_git_patch": False,
    "log_env_details": False,
    "parse_args": False,
}


class CometRun:
    """An experiment. Alerts and results are its "others", by name."""

    def __init__(self, experiment: Any, run_id: str) -> None:
        self.run_id = run_id
        self._experiment = experiment

    def parameters(self, values: Mapping[str, Scalar]) -> None:
        with _errors():
            self._experiment.log_parameters(dict(values))

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        with _errors():
            self._experiment.log_metrics(dict(values), step=step)

    def alert(self, step: int, kind: str, message: str) -> None:
        with _errors():
            self._experiment.log_other(f"alert.{step:06d}.{kind}", message)

    def summary(self, step: int, values: Mapping[str, Scalar]) -> None:
        with _errors():
            self._experiment.log_others({f"summary.{key}": value for key, value in values.items()})

    def end(self, outcome: Outcome) -> None:
        with _errors():
            self._experiment.end()


def open_run(identity: Identity) -> CometRun:
    """A new experiment, or a continuation of the interrupted one by its key."""
    if not identity.offline:
        reaching.check(identity.address, "Comet")
    with _errors():
        import comet_ml

        logging.getLogger("comet_ml").setLevel(logging.ERROR)
        experiment = _offline(comet_ml, identity) if identity.offline else _online(comet_ml, identity)
        if not identity.run_id:
            experiment.set_name(identity.name)
    return CometRun(experiment, experiment.get_key())


def _offline(comet_ml: Any, identity: Identity) -> Any:
    folder = Path(identity.address) if identity.address else identity.folder / "comet"
    folder.mkdir(parents=True, exist_ok=True)
    if identity.run_id:
        return comet_ml.ExistingOfflineExperiment(
            previous_experiment=identity.run_id, offline_directory=str(folder), **_NOTHING_AUTOMATIC
        )
    return comet_ml.OfflineExperiment(
        project_name=identity.project, offline_directory=str(folder), **_NOTHING_AUTOMATIC
    )


def _online(comet_ml: Any, identity: Identity) -> Any:
    if identity.address:
        comet_ml.get_config()["comet.url_override"] = identity.address
    if identity.run_id:
        experiment = comet_ml.ExistingExperiment(previous_experiment=identity.run_id, **_NOTHING_AUTOMATIC)
    else:
        experiment = comet_ml.Experiment(project_name=identity.project, **_NOTHING_AUTOMATIC)
    if not experiment.alive:
        raise SinkError("Comet did not open the experiment: are its key (`comet login`) and the network right?")
    return experiment


@contextmanager
def _errors() -> Iterator[None]:
    try:
        from comet_ml.exceptions import CometException
    except ImportError as e:
        raise SinkError(f"Comet cannot be loaded: {e}") from e
    try:
        yield
    except (CometException, OSError, ValueError) as e:
        raise SinkError(f"Comet: {str(e).splitlines()[0]}") from e
