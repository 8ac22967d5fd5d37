"""A scoring job from its configuration to its output and report; begun, resumed, or found to be finished.

It puts the parts together: what is to be scored is divided, replicas score it, parts become the output. The same call
goes on where the last one ended, however that was.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from michelangelo import errors
from michelangelo.llm.scorer import (
    config as configuration,
)
from michelangelo.llm.scorer import (
    dispatching,
    engine_kinds,
    manifest,
    page,
    prediction,
    ray_data,
    report,
    sharding,
    sources,
    templates,
    writing,
)
from michelangelo.llm.scorer.config import ScoreConfig
from michelangelo.llm.scorer.dispatching import Dispatcher, Terms
from michelangelo.llm.scorer.display import Display
from michelangelo.llm.scorer.manifest import Head, JobFolder, Lock
from michelangelo.llm.scorer.replicas import on_ray
from michelangelo.llm.scorer.report import Session
from michelangelo.llm.scorer.sharding import Division, Shard

__all__ = ["Outcome", "check", "score"]

_MAX_ROUNDS: Final = 5
"""Of scoring and writing: a damaged part is scored again."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call ended."""

    is_complete: bool
    """False: it was asked to stop; the same call goes on."""
    folder: Path
    report: dict[str, Any]


def score(
    config: ScoreConfig,
    *,
    dataset: Any = None,
    is_fresh: bool = False,
    display: Display | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    environment: Mapping[str, str] | None = None,
) -> Outcome:
    """Score all rows. `dataset`: a Ray Dataset instead of `input.path`; it is written to the job's folder first.

    `is_fresh`: forget what an earlier call did. `environment`: where engines' keys are looked up. Raises SettingsError
    (the configuration), DatasetError (the input), ScoringError (another one works on it, input or configuration
    changed, too many errors), EngineError.
    """
    shown = display or Display(is_on=False)
    config = check(config, has_dataset=dataset is not None)
    is_of_ray = dataset is not None or config.input.format == "ray"
    if not is_of_ray:
        sources.files_of(config.input)  # before anything is made, or forgotten, for an input that is not there
    folder = JobFolder(config.job_folder)
    with Lock(folder.path) as lock, _cluster(config):
        if is_fresh:
            folder.clear()
            ray_data.forget(folder.path)
        if is_of_ray:
            config = ray_data.materialised(config, dataset, folder.path)
        head = folder.head()
        if head is None:
            head = _begin(config, folder, shown)
        else:
            _check_same(config, head, folder)
            if (finished := folder.finished()) is not None:
                return _again(config, folder, finished, shown)
            _clean(folder)
            done = len(folder.done_shards())
            shown.say(f"going on: {done:,} of {head.num_shards:,} shards are done")
        number = 1 + sum(1 for event in folder.events() if event["kind"] == "session")
        return _run(config, folder, head, Terms(number, lock.handle, environment or {}), (shown, should_stop))


def check(config: ScoreConfig, *, has_dataset: bool = False) -> ScoreConfig:
    """The configuration with its templates read, if all of it can be used. Raises SettingsError with all faults."""
    wrong: list[str] = []
    try:
        config = templates.inlined(config)
        templates.Prompter(config)
    except errors.SettingsError as e:
        wrong += e.message.splitlines()[1:]
    wrong += engine_kinds.check(config.engine, "engine")
    for number, group in enumerate(config.replicas):
        if group.engine is not None:
            wrong += engine_kinds.check(group.engine, f"replicas.{number}.engine")
        try:
            report.price_of(group)
        except errors.SettingsError as e:
            wrong.append(f"  replicas.{number}.hardware: {e.message}")
    try:
        writing.check_place(config)
    except (errors.SettingsError, errors.DatasetError) as e:
        wrong.append(f"  {e.message}")
    if has_dataset == bool(config.input.path):
        said = "is set although a data set is given" if has_dataset else "is not set: name a file"
        wrong.append(f"  input.path: {said}")
    if wrong:
        raise errors.SettingsError("wrong fields:\n" + "\n".join(wrong))
    return config


def _begin(config: ScoreConfig, folder: JobFolder, shown: Display) -> Head:
    replicas = sum(group.max for group in config.replicas)
    division = sharding.divide(
        config.input,
        num_replicas=replicas,
        shard_rows=config.shard_rows,
        on_progress=lambda rows: shown.say(f"reading the input: {rows:,} rows so far"),
    )
    head = _head(config, division)
    folder.clear()
    folder.create(head, division)
    shown.say(f"{head.num_rows:,} rows in {head.num_shards:,} shards")
    return head


def _head(config: ScoreConfig, division: Division) -> Head:
    return Head(
        configuration.identity(config), division.files, division.num_rows, len(division.shards), config.output.path
    )


def _check_same(config: ScoreConfig, head: Head, folder: JobFolder) -> None:
    """Raises ScoringError with all that differs from what the job was begun with."""
    now = orjson.loads(orjson.dumps(configuration.identity(config)))
    differs = list(manifest.differences(head.identity, now))
    if head.output != config.output.path:
        differs.append(f"output.path was {head.output}, is {config.output.path}")
    differs += _changed_files(config, head)
    if differs:
        lines = "\n".join(f"  {line}" for line in differs)
        raise errors.ScoringError(
            f"{folder.path} holds a job that was begun with something else:\n{lines}\nput it back as it was to go on, "
            "choose another output for a new job, or start over with --fresh, which discards what was scored"
        )


def _changed_files(config: ScoreConfig, head: Head) -> Iterator[str]:
    now = {file.path: file for file in sources.files_of(config.input)}
    limit = config.input.limit or None
    for facts in head.files:
        file = facts.file
        found = now.pop(file.path, None)
        if found is None:
            yield f"{file.path} is gone"
        elif found.form == "hf" or (found.num_bytes, found.stamp) != (file.num_bytes, file.stamp):
            rows, digest = sharding.facts_of(found, facts.num_rows if limit else 1 << 62)
            if (rows, digest) != (facts.num_rows, facts.digest):
                yield f"{file.path} had {facts.num_rows:,} rows, has {rows:,}, or others of the same number"
    if not limit:
        yield from (f"{path} is new" for path in now)


def _clean(folder: JobFolder) -> None:
    """What a killed session left behind, and nobody refers to."""
    done = folder.done_shards()
    for number, paths in folder.row_logs().items():
        if number in done and folder.record(number) is not None:
            for path in paths:
                path.unlink(missing_ok=True)
    named = {record["part"] for number in done if (record := folder.record(number)) is not None}
    for path in folder.parts.iterdir():
        if path.name not in named:
            path.unlink(missing_ok=True)


def _run(
    config: ScoreConfig,
    folder: JobFolder,
    head: Head,
    terms: Terms,
    caller: tuple[Display, Callable[[], bool]],
) -> Outcome:
    shown, should_stop = caller
    shards = folder.shards()
    number = terms.session
    folder.add_event("session", number=number)
    expected = _expected(config, folder)
    began = time.monotonic()
    replicas: list[dict[str, Any]] = []
    scoring = 0.0
    for _ in range(_MAX_ROUNDS):
        dispatcher = Dispatcher(config, folder, head, shards, terms)
        is_whole = dispatcher.run(shown.progress, should_stop)
        replicas += dispatching.facts_of(dispatcher.members.values(), config)
        scoring += dispatching.scoring_seconds(dispatcher.members.values())
        session = Session(number, time.monotonic() - began, scoring, replicas)
        if not is_whole:
            folder.add_event("stopped", number=number, **_values(session))
            return Outcome(False, folder.path, _report(config, folder, shards, session, expected))
        written, damaged = writing.write(config, folder, shards)
        if damaged is None:
            made = _report(config, folder, shards, session, expected)
            folder.add_event("ended", number=number, **_values(session))
            _publish(folder, made)
            digest = {"bytes": written.num_bytes, "digest": written.digest, "rows": written.num_rows}
            folder.finish({**digest, "report": made})
            return Outcome(True, folder.path, made)
        shown.say(f"the part of shard {damaged} is damaged: it is scored again")
        folder.discard(damaged)
    raise errors.ScoringError(f"{folder.path}: parts are damaged again and again; is the disk sound?")


def _expected(config: ScoreConfig, folder: JobFolder) -> dict[str, Any]:
    """The prediction, written down before anything is measured, once for all sessions."""
    file = folder.path / "prediction.json"
    with contextlib.suppress(FileNotFoundError, ValueError):
        known: dict[str, Any] = orjson.loads(file.read_bytes())
        return known
    made = prediction.before(config)
    manifest.write_atomically(file, [orjson.dumps(made, option=orjson.OPT_INDENT_2) + b"\n"])
    return made


def _values(session: Session) -> dict[str, Any]:
    return {
        "seconds": session.seconds,
        "scoring_seconds": session.scoring_seconds,
        "replicas": list(session.replicas),
    }


def _report(
    config: ScoreConfig, folder: JobFolder, shards: Sequence[Shard], session: Session, expected: dict[str, Any]
) -> dict[str, Any]:
    records = (folder.record(shard.number) for shard in shards)
    totals = report.add_up(record for record in records if record is not None)
    earlier = [
        Session(event["number"], event["seconds"], event["scoring_seconds"], event["replicas"])
        for event in folder.events()
        if event["kind"] in ("stopped", "ended") and event["number"] != session.number
    ]
    made = {**report.make(config, totals, [*earlier, session]), "folder": str(folder.path)}
    made["prediction"] = {"before": expected, "after": prediction.after(config, made)}
    return made


def _publish(folder: JobFolder, made: dict[str, Any]) -> None:
    manifest.write_atomically(folder.path / "report.json", [orjson.dumps(made, option=orjson.OPT_INDENT_2) + b"\n"])
    manifest.write_atomically(folder.path / "report.html", [page.html(made).encode()])


def _again(config: ScoreConfig, folder: JobFolder, finished: dict[str, Any], shown: Display) -> Outcome:
    if not writing.is_there(config, finished["bytes"]):
        raise errors.ScoringError(
            f"{config.output.path} was written by this job and is gone or has another size: start over with --fresh, "
            "or choose another output"
        )
    shown.say(f"all {finished['rows']:,} rows were scored before")
    made: dict[str, Any] = finished["report"]
    return Outcome(True, folder.path, made)


@contextlib.contextmanager
def _cluster(config: ScoreConfig) -> Iterator[None]:
    groups = [group for group in config.replicas if group.runner == "ray"]
    if not groups and config.input.format != "ray":
        yield
        return
    with on_ray.cluster(config.ray_address, sum(group.max * group.num_cpus for group in groups)):
        yield
