"""`mactl pipeline apply`: registers a pipeline: its source packed by content, its commit, its parameters' schema.

A Pipeline whose file is not beside its YAML is applied as it is written.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from michelangelo import errors
from michelangelo.cli import apply as generic
from michelangelo.cli import connection, documents, options, output, workflow_source
from michelangelo.cli.documents import Document
from michelangelo.cli.invocation import Invocation
from michelangelo.cli.output import Format
from michelangelo.cli.workflow_source import WorkflowSource

__all__ = ["apply", "pipelines", "source_of"]

_PROJECT_MARKS: Final = (".git", "pyproject.toml", "project.yaml")


@click.command("apply")
@options.files
@options.namespace
@output.output_option()
@click.option("--dry-run", is_flag=True, help="Check and say what would happen; store nothing.")
@click.option("--upgrade", is_flag=True, help="Lock the newest packages that the tasks' requirements allow.")
@click.pass_obj
def apply(
    invocation: Invocation, filenames: tuple[str, ...], namespace: str, output: Format, dry_run: bool, upgrade: bool
) -> None:
    """Register a pipeline: its source, its commit, the schema of its parameters, and the packages of its tasks.

    spec.manifest.filePath is the workflow's file, relative to the YAML file.

    \b
    Example:
      mactl pipeline apply -f pipeline.yaml
    """
    if not filenames:
        raise errors.SettingsError("name what to register: -f pipeline.yaml")
    loaded = pipelines(filenames)
    found = [source_of(one, upgrade=upgrade) for one in loaded]
    filled = [_filled(one, source) if source else one for one, source in zip(loaded, found, strict=True)]
    with connection.connect(invocation) as link:
        for source in found:
            if source is not None and not dry_run:
                source.upload(link)
        generic.apply_files(link, filled, namespace=namespace, form=output, dry_run=dry_run)


def pipelines(filenames: Sequence[str]) -> list[Document]:
    """The documents of files, all of which have to be Pipelines. Raises SettingsError."""
    loaded = documents.load(filenames)
    foreign = [one.place("kind") for one in loaded if one.object["kind"] != "Pipeline"]
    if foreign:
        raise errors.SettingsError(f"{', '.join(foreign)}: no Pipeline; `mactl apply -f` takes every kind")
    return loaded


def source_of(document: Document, *, upgrade: bool = False) -> WorkflowSource | None:
    """The workflow that the manifest names; None when the manifest already says where its packed source is."""
    spec = document.object.get("spec")
    manifest = (spec.get("manifest") if isinstance(spec, dict) else None) or {}
    named = manifest.get("filePath") or manifest.get("file_path") or ""
    if not isinstance(named, str) or not named or manifest.get("uniflowTar") or manifest.get("uniflow_tar"):
        return None
    file, _, function = named.partition(":")
    folder = Path.cwd() if document.source == "standard input" else Path(document.source).resolve().parent
    path, module = _located(file, folder)
    if path is None:
        place = document.place("spec.manifest.filePath")
        raise errors.SourceError(
            f"{place}: there is no file {file!r} beside it, and no module of that name there, above, or here"
        )
    function = function or str(manifest.get("uniflowFunction") or manifest.get("uniflow_function") or "")
    return workflow_source.read(
        str(path), function.rpartition(".")[2] if "." in function else function, module=module, upgrade=upgrade
    )


def _located(named: str, folder: Path) -> tuple[Path | None, str]:
    """The file that a path beside the document names, or a module of the project that the document lies in; and the
    name to import it by, where that is given."""
    if (folder / named).is_file():
        return folder / named, ""
    inner = named.replace(".", "/")
    for root in _roots(folder):
        for path in (root / f"{inner}.py", root / inner / "__init__.py"):
            if path.is_file():
                return path, named if "." in named else ""
    return None, ""


def _roots(folder: Path) -> list[Path]:
    """Where the modules of the project may begin: `folder` and those above it, up to that of the whole project, and
    the current folder."""
    above = [folder, *folder.parents]
    ends = [index for index, one in enumerate(above) if any((one / name).exists() for name in _PROJECT_MARKS)]
    return list(dict.fromkeys([*above[: ends[0] + 1 if ends else 1], Path.cwd()]))


def _filled(document: Document, source: WorkflowSource) -> Document:
    spec = document.object["spec"]
    aliases = ("file_path", "uniflow_function", "source_digest", "environments")
    given = {key: value for key, value in spec["manifest"].items() if key not in aliases}
    new = {**spec, "manifest": {**given, **source.manifest()}}
    if commit := source.commit():
        new["commit"] = commit
    if "owner" not in new and (who := workflow_source.actor()):
        new["owner"] = who
    return dataclasses.replace(document, object={**document.object, "spec": new})
