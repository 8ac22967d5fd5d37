"""What `mactl cache explain` says: the story of one step, from what was recorded when it ran, for people and as data.

The engine notes at each hit and miss what it looked for and what it found (details of TaskRuns). Here that is read
again, joined with the packed sources of both runs and with earlier attempts of the same work, and shown.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final, TextIO

import click

from michelangelo import errors
from michelangelo.cli import artifacts, cache_sources, colours, output
from michelangelo.cli.cache_sources import Sources
from michelangelo.cli.connection import Connection
from michelangelo.client.client import Object
from michelangelo.meta import labels

__all__ = ["choose", "print_data", "show", "steps", "tell"]

_PAGE: Final = 500
_NAMED: Final = 10
_COLOURS: Final = {"hit": "green", "miss": "yellow", "waiting": "yellow"}


def steps(link: Connection, namespace: str, run: str) -> list[list[Object]]:
    """The attempts of each step of a run that is a task's, both in order; steps by where and when they were called,
    not by when they were started. NotFoundError without the run."""
    link.client.get("PipelineRun", run, namespace=namespace)
    listed = link.client.list("TaskRun", namespace=namespace, label_selector=f"{labels.PIPELINE_RUN}={run}")
    found: dict[str, list[Object]] = {}
    for one in sorted(listed.items, key=_order):
        if one["spec"].get("type") == "Task" and labels.REPAIR_MARK not in one["spec"]["step"]:
            found.setdefault(one["spec"]["step"], []).append(one)
    return list(found.values())


def choose(found: Sequence[list[Object]], run: str, wanted: str, nth: int | None) -> list[Object]:
    """The step that is meant: by its identity, by its task, or by how one of these begins. Raises NotFoundError,
    SettingsError where several are meant."""
    by_step = [one for one in found if wanted in (one[0]["spec"]["step"], one[0]["metadata"]["name"])]
    by_task = [one for one in found if one[0]["spec"]["task"] == wanted]
    begins = [one for one in found if one[0]["spec"]["step"].startswith(wanted)]
    begins += [one for one in found if one[0]["spec"]["task"].startswith(wanted) and one not in begins]
    meant = by_step or by_task or begins
    if not meant:
        tasks = ", ".join(sorted({one[0]["spec"]["task"] for one in found})) or "none"
        raise errors.NotFoundError(f"run {run} has no step {wanted!r} that has begun; its tasks: {tasks}")
    if len(meant) > 1 and nth is None and sys.stdin.isatty() and sys.stdout.isatty():
        for number, one in enumerate(meant, start=1):
            click.echo(f"{number:>3}  {one[0]['spec']['step']}  ({one[-1]['status']['state']})", err=True)
        nth = click.prompt("Which one", type=click.IntRange(1, len(meant)), default=1, err=True)
    if nth is None and len(meant) > 1:
        shown = ", ".join(f"{number}: {one[0]['spec']['step']}" for number, one in enumerate(meant[:_NAMED], start=1))
        more = ", …" if len(meant) > _NAMED else ""
        raise errors.SettingsError(
            f"{len(meant)} steps of run {run} are {wanted!r}: say which with --nth 1 … {len(meant)} ({shown}{more})"
        )
    if nth is not None and nth > len(meant):
        raise errors.NotFoundError(f"run {run} has {len(meant)} steps {wanted!r}, so there is no --nth {nth}")
    return meant[(nth or 1) - 1]


def tell(link: Connection, namespace: str, run: str, attempts: Sequence[Object]) -> dict[str, Any]:
    """The story as data: `outcome` (hit, miss, takenOver, off), `reason`, and what there is to it."""
    first, last = attempts[0], attempts[-1]
    details = {**(first["status"].get("details") or {})}
    if last["status"]["state"] == "Cached":
        details |= last["status"].get("details") or {}
    story: dict[str, Any] = {
        "run": run,
        "task": first["spec"]["task"],
        "step": first["spec"]["step"],
        "state": last["status"]["state"],
    }
    if details.get("cachedOutput"):
        return {**story, "outcome": "hit", **_hit(link, namespace, details)}
    if details.get("source"):
        source = details["source"]
        reason = f"the result was taken over from run {source.get('pipelineRun')}, which this one continues"
        return {**story, "outcome": "takenOver", "reason": reason, "source": source}
    if not details.get("cacheMiss"):
        return {**story, "outcome": "off", "reason": "the task does not ask for the cache (cache_enabled=True)"}
    story |= {"outcome": "miss", "reason": details["cacheMiss"], "key": details.get("cacheKey") or {}}
    nearest = details.get("cacheNearest")
    if nearest:
        story["nearest"] = _with_sources(link, namespace, run, nearest)
        if any(one["what"] in ("timeToLive", "data") for one in nearest["differences"]):
            return story  # which says all there is
    earlier = _earlier(link, namespace, run, first)
    return {**story, "earlier": earlier} if earlier else story


def print_data(story: Mapping[str, Any], form: str) -> None:
    output.print_data(dict(story), "json" if form == "json" else "yaml")


def show(story: Mapping[str, Any], stream: TextIO) -> None:
    """For people."""
    outcome = str(story["outcome"])
    word = {"hit": "HIT", "miss": "MISS", "takenOver": "TAKEN OVER", "off": "NOT CACHED"}[outcome]
    word = colours.paint(word, _COLOURS.get(outcome, ""), stream) if outcome in _COLOURS else word
    lines = [f"{word}  task {story['task']} of {story['run']} ({story['state']})", f"step      {story['step']}"]
    lines.append(f"reason    {story['reason']}")
    source = story.get("source") or {}
    if source.get("madeAt"):
        lines.append(f"made by   {source['pipelineRun']}, {source['step']}, {source['madeAt']}")
    if outcome == "hit":
        lines += ["", "matched", *_matched(story.get("key") or {})]
    nearest = story.get("nearest") or {}
    if nearest:
        lines += ["", f"nearest   {nearest['pipelineRun']}, {nearest['step']}, {nearest['madeAt']}", "differs in"]
        for one in nearest["differences"]:
            lines += _difference(one, stream)
    for one in story.get("earlier") or ():
        lines += ["", f"earlier   {one['run']} ended as {one['state']}: {one['meaning']}"]
    print("\n".join(lines), file=stream)


def _order(task_run: Object) -> tuple[list[str | int], int]:
    return artifacts.step_order(task_run["spec"]["step"]), task_run["spec"]["attempt"]


def _hit(link: Connection, namespace: str, details: Mapping[str, Any]) -> dict[str, Any]:
    key = details.get("cacheKey") or {}
    try:
        key = link.client.get("CachedOutput", details["cachedOutput"], namespace=namespace)["spec"].get("key") or key
        reason = "code, arguments and version are those of an earlier success"
    except errors.NotFoundError:
        reason = "code, arguments and version were those of an earlier success, which is no longer cached"
    return {"reason": reason, "cachedOutput": details["cachedOutput"], "source": details["source"], "key": key}


def _with_sources(link: Connection, namespace: str, run: str, nearest: Mapping[str, Any]) -> dict[str, Any]:
    """The nearest output, with the difference of the source where both can be had."""
    found = [dict(one) for one in nearest["differences"]]
    changed = [one for one in found if one["what"] == "code" and "was" in one and "is" in one]
    if changed:
        other = str(nearest["pipelineRun"])
        with Sources(link, namespace, other) as was, Sources(link, namespace, run) as is_now:
            for one in changed:
                qualname = one["name"].partition(":")[2]
                sides = [
                    was.find(one["was"].get("file", ""), qualname),
                    is_now.find(one["is"].get("file", ""), qualname),
                ]
                for side, (_, line) in zip(("was", "is"), sides, strict=True):
                    one[side] = {**one[side], **({"line": line} if line else {})}
                if all(lines for lines, _ in sides):
                    file = one["is"].get("file", "")
                    one["diff"] = cache_sources.unified(sides[0], sides[1], (f"{other}/{file}", f"{run}/{file}"))
    return {**nearest, "differences": found}


def _earlier(link: Connection, namespace: str, run: str, first: Object) -> list[dict[str, str]]:
    """The last end of the same work in another run, where it explains why nothing is cached."""
    spec = first["spec"]
    selector = f"{labels.TASK}={(first['metadata'].get('labels') or {}).get(labels.TASK, '')}"
    listed = link.client.list("TaskRun", namespace=namespace, label_selector=selector, limit=_PAGE)
    begun = str(first["status"].get("startTime") or "")
    ends = [
        one
        for one in listed.items
        if one["spec"]["fingerprint"] == spec["fingerprint"]
        and one["spec"]["pipelineRun"] != run
        and one["status"].get("final")
        and str(one["status"].get("endTime") or "") < begun
    ]
    if not ends:
        return []
    last = max(ends, key=lambda one: str(one["status"].get("endTime")))
    state = str(last["status"]["state"])
    if state not in ("Succeeded", "Cached"):
        meaning = "only successes are cached"
    elif any(_is_other(last, first, part) for part in ("version", "python", "requirements")):
        return []
    else:
        meaning = "its output is no longer cached"
    return [{"run": str(last["spec"]["pipelineRun"]), "state": state, "meaning": meaning}]


def _is_other(one: Object, other: Object, part: str) -> bool:
    """Whether what was looked for differs in a part of the key that the fingerprint does not tell."""
    keys = [(step["status"].get("details") or {}).get("cacheKey") or {} for step in (one, other)]
    return all(keys) and keys[0].get(part) != keys[1].get(part)


def _matched(key: Mapping[str, Any]) -> list[str]:
    parts = key.get("codeParts") or {}
    lines = [f"  version   {key.get('version') or '(none)'}", f"  code      {str(key.get('code', ''))[:19]}"]
    lines += [f"    {name}  {_place(part)}".rstrip() for name, part in parts.items()]
    lines.append(f"  arguments {str(key.get('arguments', ''))[:19]}")
    lines += [f"    {name} = {part.get('value', '')}" for name, part in (key.get("argumentParts") or {}).items()]
    return lines


def _difference(one: Mapping[str, Any], stream: TextIO) -> list[str]:
    what, name = one["what"], one.get("name") or ""
    if what in ("timeToLive", "data"):
        return [f"  {one['is']}"]
    if what == "requirements":
        was, is_now = (
            [line for line in one[side] or () if line not in (one[other] or ())]
            for side, other in (("was", "is"), ("is", "was"))
        )
        return [f"  {what:<9} {', '.join(was) or '(none)'} → {', '.join(is_now) or '(none)'}"]
    if what in ("version", "python"):
        return [f"  {what:<9} {one['was'] or '(none)'} → {one['is'] or '(none)'}"]
    sides = {side: one.get(side) for side in ("was", "is")}
    shown = [_value(part) for part in sides.values()]
    place = _place(sides["is"] or sides["was"] or {})
    if what == "argument" or any(part and part.get("value") for part in sides.values()):
        return [f"  {what:<9} {name}: {shown[0]} → {shown[1]}  {place}".rstrip()]
    change = "changed" if all(sides.values()) else "new" if sides["is"] else "gone"
    return [f"  code      {name or 'of the task'} {change}  {place}".rstrip(), *_painted(one.get("diff") or "", stream)]


def _value(part: Mapping[str, Any] | None) -> str:
    return "(none)" if part is None else str(part.get("value") or part.get("digest") or "")


def _place(part: Mapping[str, Any]) -> str:
    return f"{part['file']}:{part['line']}" if part.get("line") else str(part.get("file") or "")


def _painted(diff: str, stream: TextIO) -> list[str]:
    found = {"+": "green", "-": "red", "@": "cyan"}
    return [
        "      " + (colours.paint(line, found[line[0]], stream) if line[:1] in found else line)
        for line in diff.splitlines()
    ]
