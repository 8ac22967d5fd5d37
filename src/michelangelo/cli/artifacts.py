"""What tasks produced, as TaskRuns tell it: outputs, and the blobs within them. It reads objects, and no data.

An output is one artifact under the name of its task; what in it is data of its own is one more, under the path to it
(`train.model`, `split[1]`). Of several steps of one task each has its number: `score#3`.
"""

from __future__ import annotations

import collections
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from michelangelo import errors
from michelangelo.cli.connection import Connection
from michelangelo.client.client import Object
from michelangelo.meta import labels

__all__ = ["Artifact", "choose", "newest_runs", "of_run", "size_text", "step_order"]

_SUCCESSES: Final = ("Succeeded", "Cached")
_JSON_TYPES: Final = {dict: "object", list: "list", str: "text", bool: "boolean", int: "number", float: "number"}
_STRUCTURE: Final = frozenset({"fields", "items", "value"})
"""Keys by which codecs hold what is inside; they are no part of a path."""
_MIN_DIGEST: Final = 6


@dataclass(frozen=True, slots=True)
class Artifact:
    """`value` is the encoded value."""

    run: str
    name: str
    task_run: str
    step: str
    value: Any

    @property
    def digest(self) -> str:
        """Empty for what is in the object itself, and for what is in several blobs."""
        if not _is_data(self.value):
            return ""
        files = self.files
        return str(self.value.get("blob") or (next(iter(files.values())) if len(files) == 1 else ""))

    @property
    def files(self) -> dict[str, str]:
        """By name the digests of what was written as files: shards of a table, or what an `IO` class left."""
        if not _is_data(self.value) or "blob" in self.value:
            return {}
        shards = {f"part-{number:05d}.parquet": digest for number, digest in enumerate(self.value["blobs"])}
        return dict(self.value.get("files") or shards)

    @property
    def codec(self) -> str:
        return str(self.value.get("$codec") or "") if isinstance(self.value, dict) else ""

    @property
    def size(self) -> int:
        """Bytes."""
        return int(self.value.get("size") or 0) if _is_data(self.value) else len(json.dumps(self.value))

    @property
    def metadata(self) -> dict[str, Any]:
        """What the codec noted: shape, rows, columns, the file's name."""
        found = self.value.get("metadata") if self.codec else None
        return dict(found) if isinstance(found, dict) else {}

    @property
    def type(self) -> str:
        if not self.codec:
            return _JSON_TYPES.get(type(self.value), "nothing")
        named = str(self.value.get("type") or self.value.get("class") or "")
        module, _, name = named.rpartition(":")
        if module.startswith("michelangelo."):
            return name
        return f"{module}.{name}" if module else self.codec

    @property
    def summary(self) -> str:
        """The metadata in a few words."""
        notes = self.metadata
        columns = notes.pop("columns", None)
        count = notes.pop("columnCount", len(columns) if isinstance(columns, list) else 0)
        if count:
            notes["columns"] = count
        if isinstance(notes.get("shape"), list):
            notes["shape"] = "x".join(map(str, notes["shape"])) or "scalar"
        short = {name: value for name, value in notes.items() if not isinstance(value, dict | list)}
        return " ".join(f"{name}={value}" for name, value in short.items())

    def to_json(self) -> dict[str, Any]:
        return {
            "run": self.run,
            "name": self.name,
            "taskRun": self.task_run,
            "step": self.step,
            "type": self.type,
            "size": self.size,
            "digest": self.digest,
            "metadata": self.metadata,
        }


def of_run(link: Connection, namespace: str, run: str) -> list[Artifact]:
    """What the tasks of a run produced, in the order in which the tasks were first started. Raises NotFoundError."""
    try:
        link.client.get("PipelineRun", run, namespace=namespace)
    except errors.NotFoundError as missing:
        raise errors.NotFoundError(
            f"there is no run {run!r} in project {namespace}; `mactl get pr -A` lists them"
        ) from missing
    listed = link.client.list("TaskRun", namespace=namespace, label_selector=f"{labels.PIPELINE_RUN}={run}").items
    done = [one for one in listed if _is_output(one)]
    first: dict[str, str] = {}
    for one in done:
        start = str(one["status"].get("startTime") or "")
        first[one["spec"]["task"]] = min(start, first.get(one["spec"]["task"], start))
    done.sort(key=lambda one: (first[one["spec"]["task"]], one["spec"]["task"], step_order(one["spec"]["step"])))
    numbers = collections.Counter(one["spec"]["task"] for one in done)
    seen: collections.Counter[str] = collections.Counter()
    found = []
    for one in done:
        task = one["spec"]["task"]
        seen[task] += 1
        name = f"{task}#{seen[task]}" if numbers[task] > 1 else task
        for path, value in _parts(one["status"].get("output")):
            found.append(Artifact(run, name + path, one["metadata"]["name"], one["spec"]["step"], value))
    return found


def newest_runs(link: Connection, namespace: str, *, limit: int) -> list[str]:
    """The names of the newest runs, newest first."""
    runs = link.client.list("PipelineRun", namespace=namespace).items
    newest = sorted(runs, key=lambda run: (run["metadata"]["creationTimestamp"], run["metadata"]["name"]), reverse=True)
    return [str(run["metadata"]["name"]) for run in newest[:limit]]


def choose(artifacts: Sequence[Artifact], run: str, wanted: str) -> Artifact:
    """The one that `wanted` means: a name, a TaskRun, a step, or (the beginning of) a digest. Raises NotFoundError,
    SettingsError when it means several."""
    for one in artifacts:
        if wanted in (one.name, one.task_run, one.step):
            return one
    digest = wanted.removeprefix("sha256:")
    if len(digest) >= _MIN_DIGEST:
        found = {one.digest: one for one in artifacts if one.digest.removeprefix("sha256:").startswith(digest)}
        if len(found) == 1:
            return next(iter(found.values()))
        if found:
            raise errors.SettingsError(f"{wanted} is the beginning of several digests; write more of it")
    names = list(dict.fromkeys(one.name for one in artifacts))
    several = [name for name in names if name.partition("#")[0] == wanted]
    if several:
        raise errors.SettingsError(f"the task {wanted} ran {len(several)} times: choose one of {_some(several)}")
    there = f"it has {_some(names)}" if names else "it has none"
    raise errors.NotFoundError(f"the run {run} has no artifact {wanted!r}; {there}")


def step_order(step: str) -> list[str | int]:
    """A key for sorting identities of steps: `flow@3:4#2` is before `flow@3:4#10`, whichever was started first."""
    return [int(part) if at % 2 else part for at, part in enumerate(re.split(r"([0-9]+)", step))]


def size_text(size: int) -> str:
    """`1.5 MiB`."""
    number = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"


def _is_output(task_run: Object) -> bool:
    status = task_run.get("status") or {}
    spec = task_run["spec"]
    # What a repair makes is the output that is there already.
    is_task = spec.get("type", "Task") == "Task" and labels.REPAIR_MARK not in spec["step"]
    return is_task and status.get("state") in _SUCCESSES and status.get("output") is not None


def _parts(output: Any) -> Iterator[tuple[str, Any]]:
    """The output itself, and the data within it, each with its path."""
    yield "", output
    if not _is_data(output):
        yield from _data(output, "")


def _data(tree: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(tree, list):
        for index, item in enumerate(tree):
            yield from _data(item, f"{path}[{index}]")
    elif isinstance(tree, dict):
        if _is_data(tree):
            yield path, tree
            return
        for key, item in tree.items():
            is_structure = "$codec" in tree and key in _STRUCTURE
            yield from _data(item, path if is_structure else f"{path}.{key}")


def _is_data(tree: Any) -> bool:
    return isinstance(tree, dict) and "$codec" in tree and ("blob" in tree or "blobs" in tree)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
