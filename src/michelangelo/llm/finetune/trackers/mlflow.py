"""MLflow: a server, a database (sqlite:///…), or a folder. The default is a database in the run's folder."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Final, TypeVar

from michelangelo.llm.finetune.recording import SinkError
from michelangelo.llm.finetune.trackers import reaching
from michelangelo.llm.finetune.trackers.tracker_run import Identity, Outcome, Scalar

__all__ = ["MlflowRun", "open_run"]

_T = TypeVar("_T")
_MAX_PARAMETERS: Final = 100
"""Per request, by MLflow's REST interface."""
_MAX_LENGTH: Final = 5000
"""Characters of a parameter or tag; MLflow refuses more than 6,000."""
_REQUEST_SECONDS: Final = 10
_REQUEST_RETRIES: Final = 2


class MlflowRun:
    """A run of an experiment. Alerts are tags `alert.000003.LossSpike`, results are metrics and tags `summary.…`."""

    def __init__(self, client: Any, run_id: str, clock: Callable[[], float] = time.time) -> None:
        self.run_id = run_id
        self._client = client
        self._clock = clock

    def parameters(self, values: Mapping[str, Scalar]) -> None:
        from mlflow.entities import Param

        with _errors():
            # MLflow refuses to change a parameter; of a resumed run only new ones are added.
            there = self._client.get_run(self.run_id).data.params
            new = [Param(key, str(value)[:_MAX_LENGTH]) for key, value in values.items() if key not in there]
            for some in _batches(new, _MAX_PARAMETERS):
                self._client.log_batch(self.run_id, params=some)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(self._clock() * 1000)
        with _errors():
            self._client.log_batch(self.run_id, metrics=[Metric(k, v, now, step) for k, v in values.items()])

    def alert(self, step: int, kind: str, message: str) -> None:
        with _errors():
            self._client.set_tag(self.run_id, f"alert.{step:06d}.{kind}", message[:_MAX_LENGTH])

    def summary(self, step: int, values: Mapping[str, Scalar]) -> None:
        self.metrics(step, {f"summary.{k}": float(v) for k, v in values.items() if not isinstance(v, str)})
        with _errors():
            for key, value in values.items():
                if isinstance(value, str):
                    self._client.set_tag(self.run_id, f"summary.{key}", value[:_MAX_LENGTH])

    def end(self, outcome: Outcome) -> None:
        with _errors():
            self._client.set_terminated(self.run_id, "FAILED" if outcome == "Failed" else "FINISHED")


def open_run(identity: Identity) -> MlflowRun:
    """A new run, or the one that was interrupted."""
    reaching.check(identity.address, "MLflow")
    with _errors():
        import mlflow

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        client = mlflow.MlflowClient(_store(identity))
        if identity.run_id:
            client.update_run(identity.run_id, status="RUNNING")
            return MlflowRun(client, identity.run_id)
        found = client.get_experiment_by_name(identity.project)
        experiment = found.experiment_id if found else client.create_experiment(identity.project)
        return MlflowRun(client, client.create_run(experiment, run_name=identity.name).info.run_id)


def _store(identity: Identity) -> str | None:
    """The tracking URI; None: what MLflow itself is configured for."""
    from mlflow import environment_variables

    variables: Any = environment_variables
    if not variables.MLFLOW_HTTP_REQUEST_MAX_RETRIES.is_set():
        variables.MLFLOW_HTTP_REQUEST_MAX_RETRIES.set(_REQUEST_RETRIES)
    if not variables.MLFLOW_HTTP_REQUEST_TIMEOUT.is_set():
        variables.MLFLOW_HTTP_REQUEST_TIMEOUT.set(_REQUEST_SECONDS)
    if "://" in identity.address or identity.address.startswith("sqlite:"):
        return identity.address
    if identity.address:
        # A folder is a store that MLflow wants to be asked for by name.
        variables.MLFLOW_ALLOW_FILE_STORE.set(True)
        return Path(identity.address).absolute().as_uri()
    if not identity.offline:
        return None
    identity.folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{identity.folder.absolute() / 'mlflow.db'}"


@contextmanager
def _errors() -> Iterator[None]:
    try:
        from mlflow.exceptions import MlflowException
    except ImportError as e:
        raise SinkError(f"MLflow cannot be loaded: {e}") from e
    try:
        yield
    except (MlflowException, ImportError, OSError) as e:
        raise SinkError(f"MLflow: {str(e).splitlines()[0]}") from e


def _batches(items: Sequence[_T], size: int) -> Iterator[list[_T]]:
    rest = iter(items)
    while some := list(islice(rest, size)):
        yield some
