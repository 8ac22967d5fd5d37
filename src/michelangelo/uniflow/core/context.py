"""Upstream's `create_context()`: `ctx.run(workflow, …)` runs a workflow here or, with `remote-run`, on the server.

    python flow.py                              # local-run, the default: durable and cached, as any run
    python flow.py --env DATA_SIZE=10 --resume
    python flow.py remote-run --yes             # what `mactl pipeline dev-run flow.py:workflow` does

It starts nothing itself: a local run is `uniflow.run`, a remote one is the command line's.
"""

from __future__ import annotations

import argparse
import inspect
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from michelangelo.errors import ArgumentsError, SettingsError, WorkflowError
from michelangelo.uniflow import script, source
from michelangelo.uniflow.runner import RunOptions
from michelangelo.uniflow.workflow import Workflow

__all__ = ["Context", "create_context"]

_TARGETS: Final = ("local-run", "remote-run")
_NEEDLESS: Final = {
    "image": "tasks run in the environment of this project; the image is not used",
    "workflow": "there is one engine, and it is built in",
    "file_sync": "the source always goes along",
    "execution_timeout_seconds": "a run has no limit of its own; give the tasks timeout_seconds",
}


@dataclass(frozen=True)
class Context:
    """What the command line asks for. `environ` holds variables for the tasks, and may be changed before `run`."""

    target: str
    options: argparse.Namespace
    environ: dict[str, Any] = field(default_factory=dict)

    def is_local_run(self) -> bool:
        return self.target == "local-run"

    def run(self, fn: Workflow[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run the workflow to its end and return its result; with `remote-run`, start it on the server, and return
        None. Raises what the workflow raised."""
        if not isinstance(fn, Workflow):
            raise TypeError(f"ctx.run takes a function with @uniflow.workflow(), not {fn!r}")
        environ = {**self.environ, **dict(self.options.environ)}
        wrong = sorted(str(name) for name, value in environ.items() if not isinstance(value, str | None))
        if wrong:
            raise ArgumentsError(f"ctx.environ: {', '.join(wrong)} must be strings")
        if self.is_local_run():
            return script.run(fn, *args, options=_run_options(self.options, environ), **kwargs)
        _submit(fn, args, kwargs, self.options, environ)
        return None


def create_context(argv: Sequence[str] | None = None) -> Context:
    """The context that the program's arguments ask for (`argv`: in their place). Exits with status 2, and the usage,
    when they are wrong."""
    given = list(sys.argv[1:] if argv is None else argv)
    if not given or given[0].startswith("-"):
        given.insert(0, "local-run")
    target, rest = given[0], given[1:]
    if target not in _TARGETS:
        argparse.ArgumentParser(usage="%(prog)s [local-run|remote-run] [options]").error(
            f"{target!r} is no way to run: local-run or remote-run"
        )
    parser = _local_parser() if target == "local-run" else _remote_parser()
    return Context(target, parser.parse_args(rest))


class _Variables(argparse.Action):
    """`NAME=VALUE`, or `NAME` for what it is in this environment; several, or the option several times."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        found = list(getattr(namespace, self.dest) or ())
        for text in values:
            name, separator, value = text.partition("=")
            if not name:
                parser.error(f"{option} {text}: must be NAME=VALUE, or NAME")
            found.append((name, value if separator else None))
        setattr(namespace, self.dest, found)


def _local_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"{sys.argv[0]} local-run", allow_abbrev=False)
    _add_environ(parser)
    parser.add_argument(
        "--resume", nargs="?", const="", metavar="RUN", help="continue the newest unfinished run, or RUN"
    )
    parser.add_argument("--force", action="store_true", help="with --resume: go on although the code changed")
    parser.add_argument("--ephemeral", action="store_true", help="keep nothing of this run")
    parser.add_argument("--project", default="", metavar="NAME", help="the project that the run belongs to")
    return parser


def _remote_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"{sys.argv[0]} remote-run", allow_abbrev=False)
    _add_environ(parser)
    parser.add_argument("--project", default="", metavar="NAME", help="the project that the run belongs to")
    parser.add_argument("--wait", action="store_true", help="wait for the run's end, with progress")
    parser.add_argument("--storage-url", default="", metavar="URL", help="UF_STORAGE_URL of the tasks")
    parser.add_argument("--yes", action="store_true", help="nothing is asked anyway")
    parser.add_argument("--cron", default="", help="not supported")
    parser.add_argument("--image", help=_NEEDLESS["image"])
    parser.add_argument("--workflow", help=_NEEDLESS["workflow"])
    parser.add_argument("--file-sync", action="store_const", const="yes", help=_NEEDLESS["file_sync"])
    parser.add_argument("--execution-timeout-seconds", type=int, help=_NEEDLESS["execution_timeout_seconds"])
    return parser


def _add_environ(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--environ",
        "--env",
        dest="environ",
        action=_Variables,
        nargs="+",
        default=(),
        metavar="NAME=VALUE",
        help="variables for the tasks",
    )


def _run_options(options: argparse.Namespace, environ: Mapping[str, str | None]) -> RunOptions:
    return RunOptions(
        project=options.project,
        resume=options.resume,
        force=options.force,
        ephemeral=options.ephemeral,
        environ={"UF_LOCAL_RUN": "1", **environ},
    )


def _submit(
    workflow: Workflow[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    options: argparse.Namespace,
    environ: Mapping[str, str | None],
) -> None:
    """Through the command line: which server, and with which credentials, is its matter."""
    if options.cron:
        raise SettingsError("--cron: a context cannot make schedules; register the pipeline, and give it a trigger")
    for name, why in _NEEDLESS.items():
        if getattr(options, name) is not None:
            print(f"--{name.replace('_', '-')}: {why}", file=sys.stderr)  # noqa: T201 - the program's own messages
    target = source.target_of(workflow)
    command = [sys.executable, "-m", "michelangelo.cli", "pipeline", "dev-run", f"{target.path}:{target.qualname}"]
    for name, text in _texts(workflow, args, kwargs).items():
        command += ["--arg", f"{name}={text}"]
    if options.storage_url:
        command += ["--env", f"UF_STORAGE_URL={options.storage_url}"]
    for name, value in environ.items():
        command += ["--env", name if value is None else f"{name}={value}"]
    command += ["--namespace", options.project] if options.project else []
    command += ["--wait"] if options.wait else []
    status = subprocess.run(command, check=False).returncode
    if status:
        raise WorkflowError(f"the run was not started, or failed: `mactl pipeline dev-run` ended with status {status}")


def _texts(workflow: Workflow[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, str]:
    """The arguments by name, as the command line reads them. ArgumentsError for what JSON cannot say."""
    try:
        bound = workflow.signature.bind(*args, **kwargs)
    except TypeError as error:
        raise ArgumentsError(f"workflow {workflow.name}{workflow.signature}: {error}") from error
    given: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        kind = workflow.signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            raise ArgumentsError(f"workflow {workflow.name}: *{name} cannot be given to a remote run")
        given |= value if kind is inspect.Parameter.VAR_KEYWORD else {name: value}
    texts = {}
    for name, value in given.items():
        annotation = workflow.signature.parameters[name].annotation if name in workflow.signature.parameters else None
        try:
            texts[name] = value if isinstance(value, str) and annotation in (str, "str") else json.dumps(value)
        except (TypeError, ValueError) as error:
            raise ArgumentsError(
                f"workflow {workflow.name}: argument {name} cannot be given to a remote run: {error}"
            ) from error
    return texts
