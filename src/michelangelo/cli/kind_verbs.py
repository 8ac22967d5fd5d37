"""`mactl <kind> get|describe|apply|delete`: the generic verbs bound to one kind, in the form that upstream's `ma` has.

They only bring their arguments into shape; what happens is in the verb's own module.
"""

from __future__ import annotations

from collections.abc import Callable

import click

from michelangelo import errors
from michelangelo.api.v2.registry import Kind
from michelangelo.cli import apply, connection, delete, describe, documents, kind_names, options, output
from michelangelo.cli import get as get_verb
from michelangelo.cli.output import Format

__all__ = ["bind"]

_NAME = click.option("--name", "named", default="", metavar="NAME", help="The object; the same as the argument.")


def bind(verb: str, kind: Kind) -> click.Command:
    """The command of `verb` for `kind`."""
    return _VERBS[verb](kind)


def _get(kind: Kind) -> click.Command:
    word = kind_names.snake_case(kind)

    @click.command("get", help=f"Show objects of kind {kind.kind}.\n\n\b\nExample:\n  mactl {word} get -n demo -o yaml")
    @click.argument("names", nargs=-1)
    @_NAME
    @options.namespace
    @options.all_namespaces
    @options.selectors
    @output.output_option()
    @click.option("-w", "--watch", "watch", is_flag=True, help="Go on showing what changes.")
    @click.option("--limit", type=click.IntRange(min=0), default=0, help="At most so many; 0: all.")
    @click.pass_context
    def command(
        ctx: click.Context, /, names: tuple[str, ...], named: str, output: Format, watch: bool, limit: int, **given: str
    ) -> None:
        wanted = [(kind, name) for name in _names(names, named)] or [(kind, "")]
        everywhere = bool(given.pop("all_namespaces"))
        with connection.connect(ctx.obj) as link:
            query = get_verb.Query(link.namespace(given.pop("namespace"), everywhere=everywhere), **given)
            get_verb.show(link, wanted, query, output=output, watch=watch, limit=limit)

    return command


def _describe(kind: Kind) -> click.Command:
    word = kind_names.snake_case(kind)

    @click.command(
        "describe", help=f"Show {kind.kind} objects in full.\n\n\b\nExample:\n  mactl {word} describe NAME -n demo"
    )
    @click.argument("names", nargs=-1)
    @_NAME
    @options.namespace
    @options.selectors
    @click.pass_context
    def command(ctx: click.Context, /, names: tuple[str, ...], named: str, namespace: str, **selectors: str) -> None:
        wanted = [(kind, name) for name in _names(names, named)] or [(kind, "")]
        with connection.connect(ctx.obj) as link:
            describe.show(link, wanted, get_verb.Query(link.namespace(namespace), **selectors))

    return command


def _apply(kind: Kind) -> click.Command:
    word = kind_names.snake_case(kind)

    @click.command(
        "apply", help=f"Create or update {kind.kind} objects.\n\n\b\nExample:\n  mactl {word} apply -f {word}.yaml"
    )
    @options.files
    @options.namespace
    @output.output_option()
    @click.option("--dry-run", is_flag=True, help="Check only.")
    @click.pass_context
    def command(ctx: click.Context, filenames: tuple[str, ...], namespace: str, output: Format, dry_run: bool) -> None:
        if not filenames:
            raise errors.SettingsError("name what to apply: -f FILE")
        loaded = documents.load(filenames)
        foreign = [one.place("kind") for one in loaded if one.object["kind"] != kind.kind]
        if foreign:
            raise errors.SettingsError(f"{', '.join(foreign)}: no {kind.kind}; `mactl apply -f` takes every kind")
        with connection.connect(ctx.obj) as link:
            apply.apply_files(link, loaded, namespace=namespace, form=output, dry_run=dry_run)

    return command


def _delete(kind: Kind) -> click.Command:
    word = kind_names.snake_case(kind)

    @click.command("delete", help=f"Delete {kind.kind} objects.\n\n\b\nExample:\n  mactl {word} delete NAME -n demo")
    @click.argument("names", nargs=-1)
    @_NAME
    @options.namespace
    @click.option("--wait/--no-wait", "wait", default=True, help="Wait until they are gone (default).")
    @options.timeout
    @click.pass_context
    def command(
        ctx: click.Context, names: tuple[str, ...], named: str, namespace: str, wait: bool, timeout: float
    ) -> None:
        wanted = _names(names, named)
        if not wanted:
            raise errors.SettingsError(f"which {kind.plural}? Name them; `mactl delete {word} -l …` chooses by label")
        with connection.connect(ctx.obj) as link:
            place = link.namespace(namespace) if kind.namespaced else ""
            delete.delete_all(link, [(kind, name, place) for name in wanted], timeout_seconds=timeout if wait else None)

    return command


def _names(names: tuple[str, ...], named: str) -> list[str]:
    return [*names, *([named] if named else [])]


_VERBS: dict[str, Callable[[Kind], click.Command]] = {
    "get": _get,
    "describe": _describe,
    "apply": _apply,
    "delete": _delete,
}
