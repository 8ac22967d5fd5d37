"""`mactl cache`: real runs of a real program, explained, listed and invalidated, directly and through a server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.cli.conftest import Mactl

from michelangelo.app.platform import Platform
from michelangelo.cli import cache_explain
from michelangelo.client.client import Object

PROGRAM = """
from michelangelo import uniflow

RATE = 2


def scaled(value: int) -> int:
    return value * RATE


@uniflow.task(cache_enabled=True, cache_ttl_seconds=3600)
def train(rows: list[int], depth: int = 3) -> int:
    if depth < 0:
        raise ValueError("too shallow")
    return scaled(sum(rows)) + depth


@uniflow.task
def plain() -> int:
    return 1


@uniflow.workflow
def flow(depth: int = 3) -> int:
    return train([1, 2], depth=depth) + plain()


if __name__ == "__main__":
    uniflow.main(flow)
"""
Run = Callable[..., str]


@pytest.fixture
def run(platform: Platform, home: Path, tmp_path: Path) -> Run:
    """Run the program, with other text where it is to differ; the name of the run."""

    def execute(*arguments: str, was: str = "", text: str = "") -> str:
        (tmp_path / "flow.py").write_text(PROGRAM.replace(was, text) if was else PROGRAM)
        before = names(platform)
        environment = {**os.environ, "MA_HOME": str(home)}
        subprocess.run(
            [sys.executable, "flow.py", *arguments], cwd=tmp_path, env=environment, capture_output=True, check=False
        )
        (made,) = names(platform) - before
        return made

    return execute


def names(platform: Platform) -> set[str]:
    return {one["metadata"]["name"] for one in platform.client.list("PipelineRun", namespace="local").items}


def cached(platform: Platform) -> list[Object]:
    return list(platform.client.list("CachedOutput", namespace="local").items)


def test_explain_tells_a_hit_and_who_made_it(mactl: Mactl, run: Run) -> None:
    first, second = run(), run()
    told = mactl("cache", "explain", second, "train", "-n", "local")
    assert told.code == 0, told
    assert told.out.startswith("HIT  task train")
    assert f"made by   {first}, " in told.out
    assert "flow:scaled  flow.py:7" in told.out
    assert "    rows = [1, 2]" in told.out
    off = mactl("cache", "explain", second, "plain", "-n", "local")
    assert "does not ask for the cache" in off.out


def test_explain_names_the_argument_that_differs(mactl: Mactl, run: Run) -> None:
    first, second = run(), run("--depth", "4")
    told = mactl("cache", "explain", second, "tra", "-n", "local")
    assert "argument  depth: 3 → 4" in told.out
    assert f"nearest   {first}" in told.out


def test_explain_shows_the_source_that_differs(mactl: Mactl, run: Run, anywhere: Platform) -> None:
    first = run()
    second = run(was="value * RATE", text="value * RATE + 1")
    told = mactl("cache", "explain", second, "train", "-n", "local", "-o", "json")
    story = json.loads(told.out)
    (difference,) = story["nearest"]["differences"]
    assert (difference["name"], difference["is"]["line"]) == ("flow:scaled", 7)
    assert f"--- {first}/flow.py" in difference["diff"]
    assert "-    return value * RATE\n+    return value * RATE + 1" in difference["diff"]
    third = run(was="RATE = 2", text="RATE = 5")
    told = mactl("cache", "explain", third, "train", "-n", "local")
    assert "flow:RATE: 2 → 5  flow.py:4" in told.out


def test_explain_compares_with_another_run_before_it_does_with_another_call(mactl: Mactl, run: Run) -> None:
    text = "train([9], depth=depth) + train([1, 2], depth=depth)"
    first = run(was="train([1, 2], depth=depth)", text=text)
    second = run("--depth", "4", was="train([1, 2], depth=depth)", text=text)
    told = mactl("cache", "explain", second, "train", "--nth", "2", "-n", "local")
    assert f"nearest   {first}" in told.out, told
    assert "argument  depth: 3 → 4" in told.out
    assert "rows:" not in told.out
    which = mactl("cache", "explain", second, "train", "-n", "local")
    assert (which.code, "(1: flow@" in which.err, ", 2: flow@" in which.err) == (2, True, True), which


@pytest.mark.parametrize(
    ("text", "told"),
    [("cache_ttl_seconds=1e-6", "its time to live is 1e-06 s"), ('cache_version="2"', "version   (none) → 2")],
)
def test_explain_does_not_call_deleted_what_differs(mactl: Mactl, run: Run, text: str, told: str) -> None:
    run()
    second = run(was="cache_ttl_seconds=3600", text=text)
    shown = mactl("cache", "explain", second, "train", "-n", "local").out
    assert told in shown
    assert "earlier" not in shown


def test_explain_names_the_packages_that_differ(capsys: pytest.CaptureFixture[str]) -> None:
    difference = {"what": "requirements", "name": "", "was": ["a==1", "b==1"], "is": ["a==1", "b==2"]}
    nearest = {"pipelineRun": "r", "step": "s", "madeAt": "now", "differences": [difference]}
    story = {"outcome": "miss", "task": "t", "run": "r", "state": "Succeeded", "step": "s", "reason": ""}
    cache_explain.show({**story, "nearest": nearest}, sys.stdout)
    assert "requirements b==1 → b==2\n" in capsys.readouterr().out


def test_explain_says_that_failures_are_not_cached(mactl: Mactl, run: Run) -> None:
    first, second = run("--depth=-1"), run("--depth=-1")
    told = mactl("cache", "explain", second, "train", "-n", "local")
    assert f"earlier   {first} ended as Failed: only successes are cached" in told.out


def test_explain_of_what_is_not_there_says_what_there_is(mactl: Mactl, run: Run) -> None:
    name = run()
    told = mactl("cache", "explain", name, "evaluate", "-n", "local")
    assert (told.code, "its tasks: plain, train" in told.err) == (1, True), told
    assert mactl("cache", "explain", "run-none", "train", "-n", "local").code == 1


def test_list_and_invalidate(mactl: Mactl, run: Run, anywhere: Platform) -> None:
    first, second = run(), run("--depth", "4")
    listed = mactl("cache", "list", "-n", "local", "--run", first)
    assert listed.out.count("\n") == 2
    assert "59m" in listed.out
    assert mactl("cache", "invalidate", "-n", "local").code == 2
    mactl("cache", "invalidate", "--all", "-n", "local", "--dry-run")
    mactl("cache", "invalidate", "--task", "train", "--older-than", "1d", "-n", "local")
    assert len(cached(anywhere)) == 2
    assert "1 cached output deleted" in mactl("cache", "invalidate", "--run", second, "-n", "local").out
    (left,) = cached(anywhere)
    assert left["spec"]["sourcePipelineRun"]["name"] == first
    mactl("cache", "invalidate", left["metadata"]["name"], "-n", "local")
    assert cached(anywhere) == []
    third = run()
    told = mactl("cache", "explain", third, "train", "-n", "local")
    assert "its output is no longer cached" in told.out
