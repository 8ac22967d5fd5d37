"""Starting a workflow from a script: `uniflow.run` in Python, `uniflow.main` as the program's entry.

    if __name__ == "__main__":
        uniflow.main(pipeline)          # python flow.py --n 3 --resume

The flags are computed from the workflow's signature. What a run shows while it goes on is the runner's business.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
import types
from collections.abc import Sequence
from typing import Any, NoReturn, TextIO, TypeVar

from michelangelo.errors import ArgumentsError, MichelangeloError
from michelangelo.uniflow import parameters, runner
from michelangelo.uniflow.runner import RunOptions
from michelangelo.uniflow.workflow import Workflow

__all__ = ["main", "parse", "run"]

_R = TypeVar("_R")
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_OPTIONS = ("resume", "force", "ephemeral", "project", "help", "arg")


def run(workflow: Workflow[..., _R], *args: Any, options: RunOptions | None = None, **kwargs: Any) -> _R:
    """Run `workflow` to its end, durably, and return its result. Raises ArgumentsError before anything starts when
    the arguments do not fit its signature, else what the workflow raised."""
    result: _R = runner.resolve_runner().run(workflow, args, kwargs, options or RunOptions())
    return result


def main(workflow: Workflow[..., Any], argv: Sequence[str] | None = None) -> NoReturn:
    """Run `workflow` with the arguments of the command line, print its result, and exit.

    Exit status: 0; 1 when the workflow failed, or what the error's `exit_code` says (2: wrong arguments).
    """
    sys.excepthook = _show_users_frames
    sys.exit(_run_program(workflow, sys.argv[1:] if argv is None else argv, sys.stdout, sys.stderr))


def parse(workflow: Workflow[..., Any], argv: Sequence[str]) -> tuple[dict[str, Any], RunOptions]:
    """The arguments and options that a command line gives. ArgumentsError names all that is wrong."""
    parser, flags = _parser(workflow)
    given = vars(parser.parse_args(argv))
    texts = {name: given[f"parameter:{name}"] for name in flags if given[f"parameter:{name}"] is not None}
    for pair in given["arg"]:
        name, separator, text = pair.partition("=")
        if not separator:
            raise ArgumentsError(f"--arg {pair}: must be NAME=VALUE")
        texts[name] = text
    options = RunOptions(
        project=given["project"], resume=given["resume"], force=given["force"], ephemeral=given["ephemeral"]
    )
    if options.resume is not None and not texts:
        return {}, options
    return parameters.from_texts(workflow, texts), options


def _show_users_frames(kind: type[BaseException], error: BaseException, trace: types.TracebackType | None, /) -> None:
    """The traceback of an exception that the user's code raised, without the frames of this package."""
    shown = traceback.TracebackException(kind, error, trace)
    shown.stack = traceback.StackSummary.from_list(
        [frame for frame in shown.stack if not os.path.abspath(frame.filename).startswith(_PACKAGE)]
    )
    sys.stderr.write("".join(shown.format()))


def _run_program(workflow: Workflow[..., Any], argv: Sequence[str], out: TextIO, err: TextIO) -> int:
    try:
        kwargs, options = parse(workflow, argv)
        result = run(workflow, options=options, **kwargs)
    except MichelangeloError as error:
        if not error.was_shown:
            print(f"error: {error}", file=err)
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped; continue with --resume", file=err)
        return 130
    if result is not None:
        print(result, file=out)
    return 0


def _parser(workflow: Workflow[..., Any]) -> tuple[argparse.ArgumentParser, list[str]]:
    parser = argparse.ArgumentParser(
        description=(workflow.__doc__ or "").strip().partition("\n\n")[0] or None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    inputs = parser.add_argument_group("parameters")
    flags = []
    for parameter in parameters.describe(workflow):
        if parameter.name in _OPTIONS:
            continue  # reachable as --arg NAME=VALUE
        flags.append(parameter.name)
        inputs.add_argument(
            f"--{parameter.name.replace('_', '-')}",
            dest=f"parameter:{parameter.name}",
            metavar=parameter.type_name,
            help="required" if parameter.required else f"default: {parameter.default!r}".replace("%", "%%"),
        )
    inputs.add_argument("--arg", action="append", default=[], metavar="NAME=VALUE", help="any parameter, by its name")
    options = parser.add_argument_group("run")
    options.add_argument(
        "--resume", nargs="?", const="", metavar="RUN", help="continue the newest unfinished run, or RUN"
    )
    options.add_argument("--force", action="store_true", help="with --resume: go on although the code changed")
    options.add_argument("--ephemeral", action="store_true", help="keep nothing of this run")
    options.add_argument("--project", default="", metavar="NAME", help="the project that the run belongs to")
    return parser, flags
