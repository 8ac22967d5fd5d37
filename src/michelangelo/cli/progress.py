"""What a run does, as it does it: one line per attempt that ends, until the run ends.

Lines go to standard error, so that the output of a verb stays clean. It reads objects only, and changes nothing.
"""

from __future__ import annotations

import json
import sys
from typing import Final

import click

from michelangelo import errors
from michelangelo.cli import colours
from michelangelo.cli.connection import Connection
from michelangelo.client.client import Object
from michelangelo.meta import labels, timestamps

__all__ = ["check_success", "follow", "has_ended", "task_line"]

_ENDED: Final = frozenset({"Succeeded", "Failed", "Killed", "Skipped"})
_MARKS: Final = {"Succeeded": ("✓", "green"), "Cached": ("↺", "cyan"), "Running": ("…", "yellow")}
_SHORT: Final = 1000
_FAILED: Final = ("✗", "red")


def follow(link: Connection, name: str, namespace: str) -> Object:
    """Print attempts as they end; the run as it ended."""
    selector = f"{labels.PIPELINE_RUN}={name}"
    tasks = link.client.watch("TaskRun", namespace=namespace, label_selector=selector)
    run = link.client.watch("PipelineRun", namespace=namespace, field_selector=f"metadata.name={name}")
    shown: set[str] = set()
    try:
        while True:
            event = run.next(0.2)
            while (step := tasks.next(0.0)) is not None:
                if step.type != "BOOKMARK":
                    _show(step.object, shown)
            if event is not None and event.type == "DELETED":
                raise errors.NotFoundError(f"pipeline_run/{name} was deleted meanwhile")
            if event is not None and event.type != "BOOKMARK" and has_ended(event.object):
                for one in link.client.list("TaskRun", namespace=namespace, label_selector=selector).items:
                    _show(one, shown)
                return event.object
    finally:
        tasks.close()
        run.close()


def check_success(run: Object, *, with_result: bool = True) -> None:
    """Says how the run ended, and its result where that is small. Raises WorkflowError unless it succeeded."""
    status = run.get("status") or {}
    state, name = status.get("state", "Unknown"), run["metadata"]["name"]
    if state != "Succeeded":
        reason = f": {status['errorMessage']}" if status.get("errorMessage") else ""
        raise errors.WorkflowError(f"pipeline_run/{name} ended {state}{reason}")
    click.echo(f"pipeline_run/{name} Succeeded", err=True)
    if (
        with_result
        and (result := status.get("result")) is not None
        and len(text := json.dumps(result, ensure_ascii=False)) <= _SHORT
    ):
        click.echo(text)


def has_ended(run: Object) -> bool:
    return (run.get("status") or {}).get("state") in _ENDED


def task_line(task: Object) -> str:
    """`✓ train #1 0.8s`, or `✗ train #2 0.1s  what went wrong`."""
    spec, status = task.get("spec") or {}, task.get("status") or {}
    mark, colour = _MARKS.get(status.get("state", ""), _FAILED)
    attempt = f" #{spec['attempt']}" if spec.get("attempt", 1) > 1 else ""
    message = " ".join(str((status.get("error") or {}).get("message") or "").split())
    took = _took(status.get("startTime", ""), status.get("endTime", ""))
    name = spec.get("task") or spec.get("step")
    return f"{colours.paint(mark, colour, sys.stderr)} {name}{attempt}{took}  {message}".rstrip()


def _show(task: Object, shown: set[str]) -> None:
    name, state = task["metadata"]["name"], (task.get("status") or {}).get("state")
    if (task.get("spec") or {}).get("type", "Task") != "Task" or state in (None, "Running") or name in shown:
        return
    shown.add(name)
    click.echo(task_line(task), err=True)


def _took(start: str, end: str) -> str:
    try:
        return f" {(timestamps.parse(end) - timestamps.parse(start)).total_seconds():.1f}s"
    except ValueError:
        return ""
