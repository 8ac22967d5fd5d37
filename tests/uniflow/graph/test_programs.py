"""Random workflows: each step has its node, the order is one that the edges allow, and all data has its edge."""

from __future__ import annotations

import importlib.util
import itertools
import json
import random
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from michelangelo.blobs.memory import MemoryBlobStore
from michelangelo.engine.driver import Driver
from michelangelo.engine.journal import Entry
from michelangelo.engine.memory import MemoryJournal, MemoryLog
from michelangelo.engine.surroundings import Surroundings
from michelangelo.executors.inprocess import InProcessExecutor
from michelangelo.uniflow import graph
from michelangelo.uniflow.graph import model
from michelangelo.worker.call import Caller

FOLDER = Path(__file__).parent
NUMBERS = itertools.count()


def load(path: Path, name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


programs = load(FOLDER / "programs.py", "graph_programs")


@dataclass
class Run:
    graph: graph.Graph
    entries: dict[str, Entry]
    begun: list[str]
    """The steps, in the order in which the workflow began them."""
    error: BaseException | None


@pytest.fixture(scope="module")
def executor() -> Iterator[InProcessExecutor]:
    blobs = MemoryBlobStore()
    executor = InProcessExecutor(Caller(lambda: blobs), capacity=4)
    yield executor
    executor.close()


def run(source: str, executor: InProcessExecutor) -> Run:
    with tempfile.TemporaryDirectory() as folder:
        name = f"graph_program_{next(NUMBERS)}"
        path = Path(folder) / f"{name}.py"
        path.write_text(source)
        module = load(path, name)
        log = MemoryLog()
        executors = {"process": executor, "inprocess": executor}
        around = Surroundings("run-1", MemoryJournal(log, driver="d"), executors, MemoryBlobStore(), "d")
        driver = Driver(around)
        error: BaseException | None = None
        try:
            driver.execute(module.flow, (), {})
        except Exception as e:  # noqa: BLE001 - whatever the program raised
            error = e
        finally:
            del sys.modules[name]
        drawn = graph.read(str(path), "flow").graph()
    return Run(drawn, {entry.step: entry for entry in log.entries.values()}, list(driver._steps), error)


def check(source: str, executor: InProcessExecutor) -> None:
    found = run(source, executor)
    # Such programs raise only what they catch.
    assert found.error is None, f"{found.error!r}\n{source}"
    for entry in found.entries.values():
        node = found.graph.node(entry.node)
        assert node is not None, f"{entry.task} {entry.step} has no node, but {entry.node!r}\n{source}"
        assert node.kind in model.STEPS, f"{entry.task} {entry.step} is {node}\n{source}"
        if node.kind == "dynamic":
            assert entry.task in node.candidates or not node.candidates, (
                f"{entry.task} {entry.step} is {node}\n{source}"
            )
        else:
            assert node.name == entry.task, f"{entry.task} {entry.step} is {node}\n{source}"
    check_data(found, source)
    check_order(found, source)


def check_data(found: Run, source: str) -> None:
    """What a step was given holds the tokens of the steps that it came from."""
    made = {str(entry.output): entry for entry in found.entries.values() if entry.task not in ("now", "sleep")}
    following: dict[str, set[str]] = {}
    for edge in found.graph.edges:
        if edge.kind == "data":
            following.setdefault(edge.source, set()).add(edge.target)
    for entry in found.entries.values():
        for token in re.findall(r"<\d+>", json.dumps(entry.inputs)):
            origin = made[token]
            assert entry.node in following.get(origin.node, ()), (
                f"no data edge {origin.node} → {entry.node}, but {origin.step} → {entry.step}\n{source}"
            )


def check_order(found: Run, source: str) -> None:
    """From each step to the next there is a way along edges, through nodes that need not begin any: an empty map."""
    following: dict[str, list[tuple[str, str]]] = {}
    for edge in found.graph.edges:
        following.setdefault(edge.source, []).append((edge.target, edge.kind))

    def reaches(start: str, goal: str) -> bool:
        pending, seen = [start], set()
        while pending:
            node = pending.pop()
            ways = list(following.get(node, ()))
            parent = found.graph.node(node)
            while parent is not None:
                # An exception may leave a group from wherever it arises inside.
                ways += [way for way in following.get(parent.id, ()) if way[1] == "exception"]
                parent = found.graph.node(parent.parent)
            for target, _ in ways:
                if target == goal:
                    return True
                known = found.graph.node(target)
                if known is not None and known.kind not in ("task", "timer") and target not in seen:
                    seen.add(target)
                    pending.append(target)
        return False

    place = "start"
    for step in found.begun:
        node = found.graph.node(found.entries[step].node)
        assert node is not None
        stays = node.id == place and node.kind in ("map", "dynamic")
        assert stays or reaches(place, node.id), f"no way {place} → {node.id}\n{source}"
        place = node.id


@hypothesis.given(chance=st.randoms(use_true_random=False), size=st.integers(1, 6))
@hypothesis.settings(max_examples=40, suppress_health_check=list(hypothesis.HealthCheck))
def test_every_step_of_a_random_workflow_has_its_node(
    executor: InProcessExecutor, chance: random.Random, size: int
) -> None:
    check(programs.generate(chance, size), executor)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(150))
def test_every_step_of_a_large_random_workflow_has_its_node(executor: InProcessExecutor, seed: int) -> None:
    check(programs.generate(random.Random(seed), 14), executor)
