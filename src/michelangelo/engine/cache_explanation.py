"""Why a step was not found in the cache: the nearest cached output of the same task, and what differs.

It compares the parts of keys as they are recorded in objects, so it needs neither the code nor the data. What it says
is recorded with the step's first attempt; `mactl cache explain` shows it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from michelangelo.client.client import Client, Object
from michelangelo.engine.cache import Miss, label_of
from michelangelo.engine.cache_key import CacheKey
from michelangelo.engine.taskruns import label_value
from michelangelo.meta import labels

__all__ = ["MAX_DIFFERENCES", "Neighbours", "differences", "explain_miss", "named"]

MAX_DIFFERENCES: Final = 20
_MAX_NAMED: Final = 3
_PAGE: Final = 20
_WORDS: Final = {
    "code": "code of {}",
    "argument": "argument {}",
    "version": "version",
    "python": "Python",
    "requirements": "requirements",
    "timeToLive": "its time to live",
    "data": "its data",
}


class Neighbours:
    """CachedOutputs of one namespace by task, for one run. While a task has few, they are listed once."""

    def __init__(self, client: Client, namespace: str, run: str) -> None:
        self._client = client
        self._namespace = namespace
        self._run = run
        self._few: dict[str, list[Object]] = {}
        self._many: dict[str, Sequence[Object]] = {}

    def nearest(self, key: CacheKey) -> Object | None:
        """The CachedOutput of the task with the fewest differences, of these the newest; None when there is none.

        One of another run comes first: another call of this run differs because it was called otherwise, which says
        nothing of what has changed."""
        found = self._candidates(key)
        wanted = key.document()
        return min(found, key=lambda one: (_run_of(one) == self._run, *_distance(wanted, one)), default=None)

    def add(self, obj: Object) -> None:
        """Made by this run."""
        self._few.get((obj["metadata"].get("labels") or {}).get(labels.TASK, ""), []).append(obj)

    def _candidates(self, key: CacheKey) -> Sequence[Object]:
        task = label_value(key.task)
        if task not in self._few and task not in self._many:
            listed = self._list(f"{labels.TASK}={task}")
            if len(listed) < _PAGE:
                self._few[task] = listed
            else:
                self._many[task] = listed
        if task in self._few:
            return self._few[task]
        for label, value in ((labels.CACHE_ARGUMENTS, key.arguments), (labels.CACHE_CODE, key.code)):
            same = self._list(f"{labels.TASK}={task},{label}={label_of(value)}")
            if same:
                return same
        return self._many[task]

    def _list(self, selector: str) -> list[Object]:
        listed = self._client.list("CachedOutput", namespace=self._namespace, label_selector=selector, limit=_PAGE)
        return list(listed.items)


def explain_miss(key: CacheKey, miss: Miss, neighbours: Neighbours) -> dict[str, Any]:
    """Details for the step's first attempt: `cacheMiss` (a sentence), `cacheKey`, and, where there is one,
    `cacheNearest` with its `differences`."""
    details: dict[str, Any] = {"cacheMiss": miss.reason, "cacheKey": key.document()}
    if miss.found is not None:
        found = [{"what": miss.aspect, "is": miss.reason}]
        return {**details, "cacheNearest": {**_origin(miss.found), "differences": found}}
    nearest = neighbours.nearest(key)
    if nearest is None:
        details["cacheMiss"] += f"; no success of {key.task} is cached in this project"
        return details
    found = differences(key.document(), nearest["spec"].get("key") or {})
    origin = _origin(nearest)
    details["cacheMiss"] += f"; the nearest, of {origin['pipelineRun']}, differs in {named(found)}"
    return {**details, "cacheNearest": {**origin, "differences": found}}


def differences(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What differs between two keys: {what, name, was, is}; `was` (in `found`) or `is` is missing where there is none.
    At most MAX_DIFFERENCES."""
    return [difference for difference, _ in zip(_differences(wanted, found), range(MAX_DIFFERENCES), strict=False)]


def named(found: Sequence[Mapping[str, Any]]) -> str:
    """The differences in a few words."""
    names = [_WORDS[one["what"]].format(one.get("name") or "the task") for one in found[:_MAX_NAMED]]
    more = len(found) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "")


def _differences(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for what in ("version", "python", "requirements"):
        is_now, was = wanted.get(what) or "", found.get(what) or ""
        if is_now != was:
            yield {"what": what, "was": was, "is": is_now}
    yield from _parts("argument", wanted.get("argumentParts") or {}, found.get("argumentParts") or {})
    if wanted.get("code") != found.get("code"):
        changed = list(_parts("code", wanted.get("codeParts") or {}, found.get("codeParts") or {}))
        yield from changed or [{"what": "code", "name": ""}]


def _parts(what: str, wanted: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for name in dict.fromkeys([*wanted, *found]):
        is_now, was = wanted.get(name), found.get(name)
        if is_now is None or was is None or is_now["digest"] != was["digest"]:
            sides = {"was": was, "is": is_now}
            yield {"what": what, "name": name, **{side: part for side, part in sides.items() if part is not None}}


def _distance(wanted: Mapping[str, Any], obj: Object) -> tuple[int, int, float]:
    found = differences(wanted, obj["spec"].get("key") or {})
    # Objects of one page are all of one store: the higher revision is the newer one.
    return len({one["what"] for one in found}), len(found), -float(obj["metadata"].get("resourceVersion") or 0)


def _run_of(obj: Object) -> str:
    return str((obj["spec"].get("sourcePipelineRun") or {}).get("name") or "")


def _origin(obj: Object) -> dict[str, Any]:
    spec = obj["spec"]
    return {
        "cachedOutput": obj["metadata"]["name"],
        "pipelineRun": _run_of(obj),
        "step": spec.get("sourcePipelineRunStep", ""),
        "madeAt": obj["metadata"].get("creationTimestamp", ""),
    }
