"""`mactl pipeline graph`: draws a pipeline's graph, in the terminal or as a picture, with what a run has done."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any, Final

import click

from michelangelo import errors
from michelangelo.cli import colours, connection, options, output, workflow_graph
from michelangelo.cli.connection import Connection
from michelangelo.cli.invocation import Invocation
from michelangelo.client.client import Object
from michelangelo.meta import labels
from michelangelo.uniflow.graph import Graph, markup, svg, text

__all__ = ["graph"]

_FORMATS: Final = ("text", "json", "yaml", "svg", "mermaid", "dot")
_SUFFIXES: Final = {
    ".svg": "svg",
    ".json": "json",
    ".yaml": "yaml",
    ".yml": "yaml",
    ".mmd": "mermaid",
    ".dot": "dot",
} | {
    ".txt": "text",
    "": "text",
}
_MIN_COLUMNS: Final = 60
_COLOURS: Final = {"ok": "green", "cached": "green", "running": "yellow"}


@click.command("graph")
@click.argument("target", required=False, default="", metavar="[FILE[:FUNCTION] | NAME]")
@options.namespace
@click.option("--run", "run_name", default="", metavar="RUN", help="Show what this run has done.")
@click.option("-o", "--output", "form", type=click.Choice(_FORMATS), default=None, help="Default: text, or by --out.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write to this file.")
@click.pass_obj
def graph(
    invocation: Invocation, target: str, namespace: str, run_name: str, form: str | None, out: Path | None
) -> None:
    """Draw the graph of a workflow file, of a registered pipeline, or of a run.

    \b
    Example:
      mactl pipeline graph pipeline.py
      mactl pipeline graph train -n demo --out train.svg
      mactl pipeline graph --run run-20260102-030405-0a1b2c3d
    """
    form = form or _form_of(out)
    states: dict[str, dict[str, int]] = {}
    if not run_name:
        drawn = _drawn(invocation, target, namespace)
    else:
        with connection.connect(invocation) as link:
            drawn, states = _of_run(link, link.namespace(namespace), run_name, target)
    written = _written(drawn, states, form, to_file=out is not None)
    if out is not None:
        try:
            out.write_text(written, encoding="utf-8")
        except OSError as e:
            raise errors.SettingsError(f"--out {out}: {e.strerror or e}") from e
        click.echo(f"{out} written")
    else:
        click.echo(_painted(written) if form == "text" and states else written, nl=False)


def _form_of(out: Path | None) -> str:
    """What the suffix of a file says. Raises SettingsError when that is of no form."""
    suffix = out.suffix.lower() if out else ""
    if suffix not in _SUFFIXES:
        known = ", ".join(filter(None, _SUFFIXES))
        raise errors.SettingsError(f"--out {out}: no form has this suffix; take one of {known}, or say -o")
    return _SUFFIXES[suffix]


def _drawn(invocation: Invocation, target: str, namespace: str) -> Graph:
    if not target:
        raise errors.SettingsError("name a workflow file, a pipeline, or a run with --run")
    path, function = _file(target)
    if path:
        return workflow_graph.of_file(path, function)
    with connection.connect(invocation) as link:
        pipeline = _get(link, "Pipeline", target, link.namespace(namespace), "register it with `mactl pipeline apply`")
        return workflow_graph.of_manifest(
            pipeline["spec"].get("manifest") or {}, link.content, f"pipeline {pipeline['metadata']['name']}"
        )


def _file(target: str) -> tuple[str, str]:
    """A file and a function, where `target` names these."""
    path, _, function = target.partition(":")
    if path.endswith(".py") or os.sep in path or function or Path(path).is_file():
        if not Path(path).is_file():
            raise errors.SourceError(f"there is no file {path}")
        return path, function
    return "", ""


def _of_run(link: Connection, namespace: str, name: str, target: str) -> tuple[Graph, dict[str, dict[str, int]]]:
    """The graph as it was when the run was started, and what it has done."""
    run = _get(link, "PipelineRun", name, namespace, "see `mactl get pipeline_run`")
    pinned = ((run.get("status") or {}).get("sourcePipeline") or {}).get("pipeline") or {}
    spec = pinned.get("spec") or run["spec"].get("pipelineSpec") or {}
    if not spec:
        raise errors.WorkflowError(f"run {name} has not been accepted yet, so what it runs is not known: wait for it")
    manifest = spec.get("manifest") or {}
    _check_target(run, manifest, target)
    drawn = workflow_graph.of_manifest(manifest, link.content, f"run {name}")
    listed = link.client.list("TaskRun", namespace=namespace, label_selector=f"{labels.PIPELINE_RUN}={name}")
    return drawn, workflow_graph.states(drawn, listed.items)


def _check_target(run: Object, manifest: dict[str, Any], target: str) -> None:
    """The run is one of the named pipeline, or of the named file. Raises SettingsError."""
    if not target:
        return
    name = run["metadata"]["name"]
    path, function = _file(target)
    if not path:
        own = (run["spec"].get("pipeline") or {}).get("name") or ""
        if own != target:
            of = f"of pipeline {own}" if own else "of a file, and of no registered pipeline"
            raise errors.SettingsError(f"run {name} is {of}, not of pipeline {target}: leave {target} out")
        return
    file, ran = Path(str(manifest.get("filePath") or "")).name, str(manifest.get("uniflowFunction") or "")
    if Path(path).name != file or (function and function != ran):
        raise errors.SettingsError(f"run {name} is of {file}:{ran}, not of {target}: leave {target} out")


def _get(link: Connection, kind: str, name: str, namespace: str, advice: str) -> Object:
    try:
        return link.client.get(kind, name, namespace=namespace)
    except errors.NotFoundError:
        what = "pipeline" if kind == "Pipeline" else "run"
        raise errors.NotFoundError(f"there is no {what} {name} in project {namespace}; {advice}") from None


def _written(drawn: Graph, states: dict[str, dict[str, int]], form: str, *, to_file: bool) -> str:
    if form == "svg":
        return svg.draw(drawn, states)
    if form == "mermaid":
        return markup.mermaid(drawn, states)
    if form == "dot":
        return markup.dot(drawn, states)
    if form == "text":
        encoding = "utf-8" if to_file else sys.stdout.encoding or "ascii"
        width = max(_MIN_COLUMNS, 100 if to_file else shutil.get_terminal_size((100, 24)).columns)
        found = text.draw(drawn, width=width, ascii_only="utf" not in encoding.lower(), states=states)
        elsewhere = text.describe(states.get(workflow_graph.NOWHERE, {}))
        return found + (f"steps that no node is named for: {elsewhere}\n" if elsewhere else "")
    document = drawn.to_json()
    for node in document["nodes"]:
        if counts := states.get(node["id"]):
            node["steps"] = counts
    return output.as_yaml(document) if form == "yaml" else json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _painted(written: str) -> str:
    """The counts of states in their colours."""

    def painted(found: re.Match[str]) -> str:
        return colours.paint(found[0], _COLOURS.get(found[1], "red"), sys.stdout)

    return re.sub(r"\b\d+ (ok|cached|running|failed|killed|lost|unknown)\b", painted, written)
