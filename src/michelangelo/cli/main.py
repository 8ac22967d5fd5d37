"""The program `mactl`: reads the command line, runs one verb, and turns every error into a sentence and an exit code.

Verbs raise errors of `michelangelo.errors` and print results; only this module prints errors. It loads no verb itself.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import click

from michelangelo import __version__, errors
from michelangelo.cli.groups import RootGroup
from michelangelo.cli.invocation import Invocation

__all__ = ["Program", "main", "mactl"]

_USAGE_ERROR = 2
_INTERRUPTED = 130


class Program(RootGroup):
    """The root of all commands: where the errors of every verb end."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except errors.MichelangeloError as e:
            if ctx.params["debug"]:
                traceback.print_exception(e)
            _print_error(e)
            ctx.exit(e.exit_code)


@click.group(
    cls=Program,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Each command has an example: mactl COMMAND --help",
)
@click.option(
    "--context", default="", envvar="MA_CONTEXT", metavar="NAME", help="Context to use (`mactl config view`)."
)
@click.option("--debug", is_flag=True, envvar="MA_DEBUG", help="Show where an error came from.")
@click.version_option(__version__, message="mactl %(version)s")
@click.pass_context
def mactl(ctx: click.Context, context: str, debug: bool) -> None:
    """Declare, run and watch machine learning pipelines: on this machine, or on a server.

    \b
    Example:
      mactl init demo && cd demo && python pipeline.py
    """
    ctx.obj = Invocation(context=context, debug=debug)


def main(argv: Sequence[str] | None = None) -> None:
    """The entry point of `mactl` and `ma`. Ends the process with the exit code of the command."""
    sys.exit(_run(argv))


def _run(argv: Sequence[str] | None) -> int:
    try:
        program = "ma" if os.path.basename(sys.argv[0]) == "ma" else "mactl"
        ended = mactl.main(args=argv, prog_name=program, standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as e:
        e.show()
        return _USAGE_ERROR
    except (click.Abort, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went away (`mactl get … | head`): no error, and nothing more to flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return ended if isinstance(ended, int) else 0


def _print_error(error: errors.MichelangeloError) -> None:
    elsewhere = ""
    if isinstance(error, errors.NotFoundError) and error.details.get("kind"):
        elsewhere = f"; `mactl get {error.details['kind']} -A` shows those of all projects"
    print(f"error: {error.message}{elsewhere}", file=sys.stderr)
    if isinstance(error, errors.InvalidError | errors.ArgumentsError):
        for field in error.errors:
            if str(field) not in error.message:
                print(f"  {field}", file=sys.stderr)
