"""`mactl init`: a new project folder that runs as it is, on this machine and on a server.

The files are written whole or not at all, and nothing that exists is overwritten.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import click

from michelangelo import errors

__all__ = ["init", "project_files"]

_PIPELINE = '''\
"""{title}: squares numbers in parallel and adds them up. Replace it by your own.

    python pipeline.py            # at once, on this machine
    python pipeline.py --n 6      # parameters are flags
    python pipeline.py --resume   # go on where a stopped run was
"""

from michelangelo import uniflow


@uniflow.task(cache_enabled=True)
def square(number: int) -> int:
    print(f"squaring {{number}}")
    return number * number


@uniflow.task(retry_attempts=2)
def add(numbers: list[int]) -> int:
    return sum(numbers)


@uniflow.workflow
def {function}(n: int = 4) -> int:
    squares = square.map(range(1, n + 1)).result()
    return add(squares)


if __name__ == "__main__":
    uniflow.main({function})
'''

_PIPELINE_YAML = """\
apiVersion: michelangelo.api/v2
kind: Pipeline
metadata:
  name: {name}
  namespace: {name}
spec:
  type: Train
  description: Squares numbers in parallel and adds them up.
  manifest:
    type: Uniflow
    filePath: pipeline.py
    uniflowFunction: {function}
"""

_PROJECT_YAML = """\
apiVersion: michelangelo.api/v2
kind: Project
metadata:
  name: {name}
  namespace: {name}
spec:
  description: {title}
  tier: 3
"""

_README = """\
# {title}

Run it on this machine; nothing else has to be running:

    python pipeline.py
    mactl get pipeline_run

The second run takes what it can from the cache. Or on a server:

    mactl serve &
    mactl apply -f project.yaml
    mactl pipeline apply -f pipeline.yaml
    mactl pipeline run {name} -n {name} --arg n=6 --wait
"""

_IGNORED = "__pycache__/\n.venv/\n"
_USED: Final = frozenset({"square", "add", "uniflow", "range", "print", "int", "list", "sum"})


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--name", default="", help="Name of the project; else the folder's.")
def init(folder: Path, name: str) -> None:
    """Make a new project folder that runs.

    \b
    Example:
      mactl init demo && cd demo && python pipeline.py
    """
    files = project_files(name or folder.resolve().name)
    taken = [str(folder / file) for file in files if (folder / file).exists()]
    if taken:
        raise errors.SettingsError(f"{', '.join(taken)} already there; nothing was written: choose another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            (folder / file).write_text(text, encoding="utf-8")
    except OSError as e:
        raise errors.SettingsError(f"{folder} cannot be written: {e.strerror}") from e
    for file in files:
        click.echo(f"created {folder / file}")
    click.echo(f"\nRun it:\n  cd {folder} && python pipeline.py")


def project_files(name: str) -> Mapping[str, str]:
    """The files of a new project, by name. Raises SettingsError when `name` cannot be a project's."""
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", name) or name == "default" or name.startswith("kube-"):
        raise errors.SettingsError(
            f"{name!r} cannot name a project: lower case letters, digits and '-', at most 63, "
            "neither default nor kube-…; give another one with --name"
        )
    function = name.replace("-", "_")
    values = {
        "name": name,
        "title": name.replace("-", " ").capitalize(),
        "function": f"run_{function}" if _is_taken(function) else function,
    }
    return {
        "pipeline.py": _PIPELINE.format(**values),
        "pipeline.yaml": _PIPELINE_YAML.format(**values),
        "project.yaml": _PROJECT_YAML.format(**values),
        "README.md": _README.format(**values),
        ".gitignore": _IGNORED,
    }


def _is_taken(function: str) -> bool:
    """Whether the generated file could not define a workflow of this name."""
    return not function.isidentifier() or keyword.iskeyword(function) or function in _USED
