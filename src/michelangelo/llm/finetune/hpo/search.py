"""The trials of a search, by Ray Tune: on this machine or on a Ray cluster, resumed where they were interrupted.

The folder of the search is the output folder of the configuration: `trials/` for the runs, and the report. Ray Tune
samples (seeded) and schedules; what a trial is, is in `trial`. Resuming needs nothing of Ray Tune's state: the same
seed gives the same trials, those that are done say so at once, and a half-done one goes on from its checkpoint.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import math
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from michelangelo import errors
from michelangelo.llm.finetune.config import FinetuneConfig
from michelangelo.llm.finetune.hpo import report, space, training, trial
from michelangelo.llm.finetune.hpo.report import SearchReport, Trial

__all__ = ["SearchOptions", "search"]

_STATE: Final = "ray"
_IDENTITY: Final = "search.json"
_MANY_REPORTS: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOptions:
    """How trials are run."""

    scheduler: Literal["all", "asha"] = "all"
    """`asha`: trials that are worse than others after as many steps are halted (arXiv 1810.05934)."""
    num_concurrent: int = 0
    """Trials at a time; 0: one per GPU, or one where there is none."""
    seed: int = 0
    fresh: bool = False
    """Forget what an interrupted search of this folder did."""


def search(
    config: FinetuneConfig,
    searched: space.Space = space.DEFAULT,
    *,
    num_trials: int = 12,
    options: SearchOptions = SearchOptions(),
    train: trial.Train = training.finetune,
) -> SearchReport:
    """Runs the trials that are missing, and writes the report into `config.output`. A trial that fails is a row of it.

    Called again for the same folder, it goes on where it was interrupted; with a larger `num_trials` it adds the
    further ones. Raises SettingsError for values that make no configuration, for a folder with another search, and
    where Ray is missing; LlmError where Ray does not start.
    """
    if num_trials < 1:
        raise errors.SettingsError(f"num_trials {num_trials}: a search has at least one trial")
    space.check(config, searched)
    try:
        import ray  # noqa: F401
        from ray import tune  # noqa: F401
    except ImportError as e:
        raise errors.SettingsError("a search needs Ray Tune: pip install 'michelangelo-oss[ray]'") from e
    folder = Path(config.output).absolute()
    setup = trial.TrialSetup(config, folder, os.getcwd())
    with (
        _claimed(folder, _identity(config, searched, options), fresh=options.fresh),
        _ray(config.parallel.ray_address, options) as num_gpus,
    ):
        results = _fit(_Plan(setup, searched, num_trials, options, num_gpus), train)
        metric = "validation loss" if trial.has_validation(config) else "smoothed training loss"
        made = SearchReport.of([_trial(result, folder) for result in results], metric=metric, folder=folder)
        report.write(made, config, searched)
    return made


@dataclass(frozen=True, slots=True)
class _Plan:
    setup: trial.TrialSetup
    searched: space.Space
    num_trials: int
    options: SearchOptions
    num_gpus: int


def _fit(plan: _Plan, train: trial.Train) -> Any:
    """The results of all trials, those of an interrupted search included."""
    from ray import tune

    setup = plan.setup

    def run(values: dict[str, Any]) -> None:
        trial.run(setup, str(tune.get_context().get_trial_name()), values, train, tune.report)

    per_trial = {"cpu": 1.0, "gpu": float(min(plan.num_gpus, setup.config.parallel.num_workers))}
    state = setup.folder / _STATE
    shutil.rmtree(state, ignore_errors=True)
    # Tune prints to standard output, which is for results.
    with contextlib.redirect_stdout(sys.stderr):
        tuner = tune.Tuner(
            tune.with_resources(run, per_trial),
            param_space=_parameters(plan.searched),
            tune_config=_tune_config(plan),
            run_config=tune.RunConfig(
                name=_STATE,
                storage_path=str(setup.folder),
                verbose=0,
                callbacks=[_callback(plan.num_trials)],
                failure_config=tune.FailureConfig(max_failures=0),
            ),
        )
        return tuner.fit()


def _tune_config(plan: _Plan) -> Any:
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search import BasicVariantGenerator

    scheduler = None
    if plan.options.scheduler == "asha":
        # A trial that comes as far as max_t is stopped there: one more, and it ends by itself.
        steps = plan.setup.config.training.max_steps
        by_step = {"time_attr": "step", "max_t": steps + 1, "grace_period": max(1, steps // 8)}
        scheduler = ASHAScheduler(**(by_step if steps else {"max_t": _MANY_REPORTS}))
    return tune.TuneConfig(
        metric="loss",
        mode="min",
        num_samples=plan.num_trials,
        max_concurrent_trials=_num_concurrent(plan.options, plan.num_gpus),
        scheduler=scheduler,
        search_alg=BasicVariantGenerator(random_state=plan.options.seed),
        trial_name_creator=_name,
        trial_dirname_creator=_name,
    )


def _name(one: Any) -> str:
    """`003`: the number behind Tune's own prefix, which is another one each time."""
    return str(one.trial_id).rpartition("_")[2][-3:]


def _parameters(searched: space.Space) -> dict[str, Any]:
    from ray import tune

    return {
        path: tune.loguniform(one.low, one.high) if isinstance(one, space.LogUniform) else tune.choice(list(one.values))
        for path, one in searched.items()
    }


def _callback(num_trials: int) -> Any:
    from ray import tune

    class Progress(tune.Callback):
        """Says how each trial ended."""

        def __init__(self) -> None:
            self._num_ended = 0

        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            last = trial.last_result or {}
            self._say(trial, last.get("message") or f"loss {last.get('loss', math.nan):.4f}")

        def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            self._say(trial, "crashed")

        def _say(self, one: Any, how: str) -> None:
            self._num_ended += 1
            values = ", ".join(f"{path} {_shown(value)}" for path, value in one.config.items())
            sys.stderr.write(f"trial {self._num_ended} of {num_trials}: {values}: {how}\n")
            sys.stderr.flush()

    return Progress()


def _trial(result: Any, folder: Path) -> Trial:
    """Of a result of Tune."""
    last = result.metrics or {}
    name = Path(result.path).name
    message = str(last.get("message") or "")
    if result.error is not None:
        state: report.TrialState = "Failed"
        message = str(result.error).strip().splitlines()[-1]
    elif not last:
        state = "Pending"
    elif last.get("is_over"):
        state = "Failed" if message else "Succeeded"
    else:
        state = "Halted"
    loss = float(last.get("loss", math.nan))
    return Trial(
        name=name,
        values=dict(result.config or {}),
        state=state,
        loss=loss if math.isfinite(loss) else math.nan,
        step=int(last.get("step", 0)),
        seconds=float(last.get("time_total_s", 0.0)),
        message=message,
        output=str(folder / "trials" / name),
    )


@contextlib.contextmanager
def _ray(address: str, options: SearchOptions) -> Iterator[int]:
    """Ray, started here unless it runs already; the number of its GPUs."""
    import ray

    is_ours = not ray.is_initialized()
    if is_ours:
        local: dict[str, Any] = {"num_cpus": max(options.num_concurrent, 1), "include_dashboard": False}
        try:
            ray.init(
                address=address or "local",
                log_to_driver=False,
                logging_level=logging.ERROR,
                **({} if address else local),
            )
        except (ConnectionError, RuntimeError, ValueError, OSError) as e:
            where = f"at {address} cannot be reached" if address else "cannot be started on this machine"
            raise errors.LlmError(f"Ray {where}: {e}") from e
    try:
        yield int(ray.cluster_resources().get("GPU", 0))  # type: ignore[no-untyped-call]
    finally:
        if is_ours:
            ray.shutdown()


def _num_concurrent(options: SearchOptions, num_gpus: int) -> int:
    return options.num_concurrent or max(num_gpus, 1)


@contextlib.contextmanager
def _claimed(folder: Path, identity: Mapping[str, Any], *, fresh: bool) -> Iterator[None]:
    """One search per folder, and one process at a time: an interrupted one is continued only by the same search."""
    if fresh and (folder / _IDENTITY).exists():
        _retire(folder)
    file = folder / _IDENTITY
    try:
        folder.mkdir(parents=True, exist_ok=True)
        opened = file.open("a+", encoding="utf-8")
    except OSError as e:
        raise errors.SettingsError(f"output {folder}: cannot be written: {e.strerror}") from e
    with opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            raise errors.SettingsError(f"{folder}: another process is searching there; choose another output") from e
        opened.seek(0)
        there = opened.read()
        wanted = json.dumps(identity, indent=2) + "\n"
        if there and there != wanted:
            raise errors.SettingsError(
                f"{folder} has a search of another configuration, space or seed: choose another output folder, or "
                "start anew with --fresh"
            )
        opened.truncate(0)
        opened.write(wanted)
        opened.flush()
        yield


def _retire(folder: Path) -> None:
    """What an earlier search made is kept beside the new one."""
    number = 1
    while (folder / f"earlier-{number}").exists():
        number += 1
    earlier = folder / f"earlier-{number}"
    earlier.mkdir()
    for name in ("trials", _IDENTITY, *report.FILES):
        if (folder / name).exists():
            (folder / name).rename(earlier / name)


def _identity(config: FinetuneConfig, searched: space.Space, options: SearchOptions) -> dict[str, Any]:
    """What decides which trials there are."""
    dump = json.dumps(config.model_dump(mode="json"), sort_keys=True)
    return {
        "configuration": hashlib.sha256(dump.encode()).hexdigest(),
        "space": {path: repr(dimension) for path, dimension in searched.items()},
        "seed": options.seed,
    }


def _shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
