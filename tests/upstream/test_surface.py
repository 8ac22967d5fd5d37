"""The import paths of the upstream SDK that are promised (docs/upstream.md), and what is behind them."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from michelangelo import uniflow
from michelangelo.errors import ArgumentsError, WorkflowError
from michelangelo.uniflow import core
from michelangelo.uniflow.core import io_registry
from michelangelo.uniflow.core.lib import concurrent
from michelangelo.uniflow.plugins import pipeline

SURFACE = {
    "michelangelo.uniflow.core": "task workflow create_context ImageSpec IO star_plugin task_context",
    "michelangelo.uniflow.core.context": "create_context Context",
    "michelangelo.uniflow.core.decorator": "task workflow star_plugin task_context",
    "michelangelo.uniflow.core.image_spec": "ImageSpec",
    "michelangelo.uniflow.core.io_registry": "IO IORegistry default_io io_registry",
    "michelangelo.uniflow.core.lib.concurrent": "run new_callable batch_run Future BatchFuture Callable",
    "michelangelo.uniflow.core.lib.time": "sleep time utc_format_seconds datestr",
    "michelangelo.uniflow.core.ref": "Ref",
    "michelangelo.uniflow.plugins.pipeline": "run_pipeline",
    "michelangelo.uniflow.plugins.ray": "RayTask UF_PLUGIN_RAY_USE_FSSPEC RayDatasetIO",
    "michelangelo.uniflow.plugins.spark": "SparkTask",
    "michelangelo.workflow.variables": "DatasetVariable",
}
LATER = ("michelangelo.lib.model_manager", "michelangelo.lib.trainer", "michelangelo.api.v2.APIClient")


@pytest.mark.parametrize("module", sorted(SURFACE))
def test_promised_names_can_be_imported(module: str) -> None:
    loaded = importlib.import_module(module)
    assert [name for name in SURFACE[module].split() if not hasattr(loaded, name)] == []


@pytest.mark.parametrize("module", sorted(SURFACE))
def test_promised_modules_are_in_the_documentation(checkout: Path, module: str) -> None:
    assert f"`{module}`" in (checkout / "docs" / "upstream.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", LATER)
def test_what_comes_later_is_said_to_come_later(checkout: Path, name: str) -> None:
    module, _, attribute = name.rpartition(".")
    if attribute[0].isupper():
        assert not hasattr(importlib.import_module(module), attribute), "it is here: move it to SURFACE"
    else:
        with pytest.raises(ImportError):
            importlib.import_module(name)
    page = (checkout / "docs" / "upstream.md").read_text(encoding="utf-8")
    assert re.search(rf"`{re.escape(name)}.*later", page)


def test_imports_load_neither_ray_nor_spark_nor_a_library_of_data() -> None:
    code = f"import sys\nfor name in {sorted(SURFACE)!r}:\n    __import__(name)\nprint(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for heavy in ("ray", "pyspark", "pandas", "numpy", "torch", "fsspec", "michelangelo.api", "michelangelo.client"):
        assert f"'{heavy}'" not in done.stdout


def test_objects_are_those_of_the_sdk() -> None:
    assert core.workflow is uniflow.workflow
    assert core.ImageSpec is uniflow.ImageSpec
    registry = io_registry.default_io

    @core.task(None, "fit", registry, True, "v2", 3)
    def train(rate: float) -> float:
        return rate

    assert isinstance(train, uniflow.Task)
    options = train.options
    assert (train.name, options.cache_enabled, options.cache_version, options.retries.attempts) == (
        "fit",
        True,
        "v2",
        3,
    )
    assert train.with_overrides(alias="again", retry_attempts=1).options.retries.attempts == 1


def test_task_context_is_empty_outside_of_a_task() -> None:
    assert core.task_context.config is None
    assert core.task_context.alias is None


def test_star_plugin_is_the_python_function_itself() -> None:
    @core.star_plugin("text.shout")
    def shout(text: str) -> str:
        return text.upper()

    assert shout("a") == "A"
    with pytest.raises(ValueError, match=r"must name"):
        core.star_plugin("shout")


def test_concurrency_library_works_in_plain_python() -> None:
    @core.task()
    def half(number: int) -> float:
        if number % 2:
            raise ValueError("odd")
        return number / 2

    batch = concurrent.batch_run([concurrent.new_callable(half, number) for number in (2, 4, 6)], max_concurrency=2)
    assert batch.get() == [1, 2, 3]
    assert batch.is_ready()
    failed = concurrent.run(half, 3)
    assert failed.done()
    with pytest.raises(ValueError, match="odd"):
        failed.result()


@pytest.mark.parametrize("limit", [0, -1, True])
def test_batch_needs_room_for_one(limit: int) -> None:
    with pytest.raises(ValueError, match="must be 1 or more"):
        concurrent.batch_run([], max_concurrency=limit)


def test_what_cannot_be_called_is_named() -> None:
    with pytest.raises(TypeError, match="7 cannot be called"):
        concurrent.run(7)  # type: ignore[arg-type]  # what a user may do


def test_run_pipeline_works_in_a_workflow_only() -> None:
    with pytest.raises(WorkflowError, match="works in a workflow only"):
        pipeline.run_pipeline("team", "train")
    with pytest.raises(ValueError, match="not both"):
        pipeline.run_pipeline("team", "train", args=[1], input_data={"a": 1})
    with pytest.raises(WorkflowError, match="works in a workflow only"):
        uniflow.run_pipeline("train")


def test_context_takes_workflows_only() -> None:
    with pytest.raises(TypeError, match=r"with @uniflow\.workflow\(\)"):
        core.create_context([]).run(len)  # type: ignore[arg-type]  # what a user may do


def test_variables_of_a_context_are_texts() -> None:
    @core.workflow()
    def flow() -> None: ...

    context = core.create_context([])
    context.environ["SIZE"] = 10
    with pytest.raises(ArgumentsError, match="SIZE must be strings"):
        context.run(flow)
