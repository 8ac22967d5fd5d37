"""`mactl logs`: what the tasks of a run have printed, or print right now.

Attempts that run at the same time share the screen: whole lines, each with the name of its task in front.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import click

from michelangelo import errors
from michelangelo.cli import connection, kind_names, options, progress
from michelangelo.cli.connection import Connection
from michelangelo.cli.invocation import Invocation
from michelangelo.client.client import Object
from michelangelo.meta import labels

__all__ = ["logs"]

_LOOK_SECONDS: Final = 0.25
"""How often growing logs are looked at."""


@click.command()
@click.argument("target", metavar="RUN | TASK_RUN | KIND/NAME")
@click.option("-f", "--follow", is_flag=True, help="Go on until the run has ended.")
@click.option("--task", default="", metavar="NAME", help="Only attempts of this task.")
@click.option("--prefix/--no-prefix", default=None, help="The task's name in front of each line (default: if several).")
@options.namespace
@click.pass_obj
def logs(invocation: Invocation, target: str, follow: bool, task: str, prefix: bool | None, namespace: str) -> None:
    """Print what a run's tasks printed.

    \b
    Example:
      mactl logs run-20260101-120000-0a1b2c3d
      mactl logs -f run-20260101-120000-0a1b2c3d --task train -n demo
      mactl logs task_run/run-20260101-120000-0a1b2c3d-1f2e3d4c5b6a-1
    """
    with connection.connect(invocation) as link:
        place = link.namespace(namespace)
        kind, name = _find(link, target, place)
        if kind == "TaskRun":
            attempt = link.client.get("TaskRun", name, namespace=place)
            run = attempt["spec"]["pipelineRun"]
            reader = _Reader(link, place, run, with_prefix=bool(prefix), only=name)
        else:
            run = name
            reader = _Reader(link, place, run, with_prefix=prefix is not False, task=task)
        if follow:
            reader.follow()
        else:
            reader.read_all()


def _find(link: Connection, target: str, namespace: str) -> tuple[str, str]:
    """Kind and name of what `target` means: without a kind it is a run, or else an attempt."""
    if "/" in target:
        (kind, name) = kind_names.parse_targets([target])[0]
        if kind.kind not in ("PipelineRun", "TaskRun"):
            raise errors.SettingsError(f"a {kind.kind} has no logs; name a run or a task run")
        return kind.kind, name
    try:
        link.client.get("PipelineRun", target, namespace=namespace)
    except errors.NotFoundError as missing:
        try:
            link.client.get("TaskRun", target, namespace=namespace)
        except errors.NotFoundError:
            raise errors.NotFoundError(
                f"there is no run and no task run {target!r} in project {namespace}; `mactl get pr -A` lists them"
            ) from missing
        return "TaskRun", target
    return "PipelineRun", target


@dataclass
class _Log:
    """How far one attempt's log was read."""

    prefix: str
    offset: int = 0
    rest: str = ""
    ended: bool = False
    decoder: codecs.IncrementalDecoder = field(default_factory=lambda: codecs.getincrementaldecoder("utf-8")("replace"))


class _Reader:
    def __init__(
        self, link: Connection, namespace: str, run: str, *, with_prefix: bool, task: str = "", only: str = ""
    ) -> None:
        self._link = link
        self._namespace = namespace
        self._run = run
        self._with_prefix = with_prefix
        self._task = task
        self._only = only
        self._logs: dict[str, _Log] = {}

    @property
    def _selector(self) -> str:
        return f"{labels.PIPELINE_RUN}={self._run}"

    def read_all(self) -> None:
        """All attempts, in the order of their starts, one after the other."""
        found = self._link.client.list("TaskRun", namespace=self._namespace, label_selector=self._selector).items
        for attempt in sorted(found, key=_start):
            if self._notice(attempt):
                self._read(attempt["metadata"]["name"], last=True)

    def follow(self) -> None:
        """As it is printed, until the run (or the one attempt) has ended."""
        client = self._link.client
        attempts = client.watch("TaskRun", namespace=self._namespace, label_selector=self._selector)
        run = client.watch("PipelineRun", namespace=self._namespace, field_selector=f"metadata.name={self._run}")
        try:
            ended = False
            while not ended:
                event = run.next(_LOOK_SECONDS)
                ended = event is not None and (event.type == "DELETED" or progress.has_ended(event.object))
                while (step := attempts.next(0.0)) is not None:
                    if step.type in ("ADDED", "MODIFIED"):
                        self._notice(step.object)
                self._read_open(self._logs)
                ended = ended or (bool(self._only) and self._only in self._logs and self._logs[self._only].ended)
            self.read_all()
        finally:
            attempts.close()
            run.close()

    def _read_open(self, names: Iterable[str]) -> None:
        for name in list(names):
            log = self._logs[name]
            if log.offset >= 0:
                self._read(name, last=log.ended)

    def _notice(self, attempt: Object) -> bool:
        """Whether the attempt is one to show; from now on it is known."""
        name, spec, status = attempt["metadata"]["name"], attempt["spec"], attempt.get("status") or {}
        if spec.get("type", "Task") != "Task" or (self._only and name != self._only):
            return False
        if self._task and spec.get("task") != self._task:
            return False
        number = f"#{spec['attempt']}" if spec.get("attempt", 1) > 1 else ""
        log = self._logs.setdefault(name, _Log(f"[{spec.get('task', '')}{number}] " if self._with_prefix else ""))
        log.ended = status.get("state") not in (None, "Running")
        return True

    def _read(self, name: str, *, last: bool) -> None:
        """Print the lines that have come; with `last` also one without an end."""
        log = self._logs[name]
        if log.offset < 0:
            return
        data = self._link.content.log(self._namespace, self._run, name, offset=log.offset)
        log.offset += len(data)
        lines = (log.rest + log.decoder.decode(data, final=last)).splitlines(keepends=True)
        log.rest = "" if last or not lines or lines[-1].endswith("\n") else lines.pop()
        for line in lines:
            click.echo(log.prefix + line.rstrip("\n"))
        if last:
            log.offset = -1


def _start(attempt: Object) -> tuple[str, int]:
    status, metadata = attempt.get("status") or {}, attempt["metadata"]
    return str(status.get("startTime") or metadata.get("creationTimestamp") or ""), attempt["spec"].get("attempt", 1)
