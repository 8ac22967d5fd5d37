"""Tasks: their options, and what a call is in plain Python, in a run, and in a task."""

from __future__ import annotations

import dataclasses
import pickle
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from michelangelo import uniflow
from michelangelo.errors import ArgumentsError, UserCodeError
from michelangelo.uniflow import task_context
from michelangelo.uniflow.config import InProcess, Process, Resources, TaskConfig
from michelangelo.uniflow.retry import Retry
from michelangelo.uniflow.task import Task, TaskOptions

if TYPE_CHECKING:
    from tests.uniflow.conftest import MemoryRun


@uniflow.task
def add(x: int, y: int = 1, *rest: int, **more: int) -> int:
    """Adds."""
    return x + y + sum(rest) + sum(more.values())


@uniflow.task()
def fail(text: str) -> int:
    raise ValueError(text)


@uniflow.task
def outer(x: int) -> list[Any]:
    return [add(x), add.submit(x, 2).result(), add.map([1, 2], y=x).result(), task_context.current() is not None]


@dataclass(frozen=True)
class Cluster(TaskConfig):
    """Fields in the upstream's style."""

    executor: ClassVar[str] = "cluster"
    head_cpu: int | None = None
    worker_instances: int | None = None


def test_decorator_takes_all_forms() -> None:
    def fn() -> int:
        return 1

    assert [type(form) for form in (uniflow.task(fn), uniflow.task()(fn), uniflow.task(Cluster())(fn))] == [Task] * 3
    assert uniflow.task(Cluster(head_cpu=2))(fn).options.config == Cluster(head_cpu=2)
    assert uniflow.task(config=Cluster(head_cpu=2))(fn).options.executor == "cluster"


def test_upstream_option_names_are_accepted() -> None:
    image = uniflow.ImageSpec(container_image="team/train:1")

    @uniflow.task(
        config=Cluster(), cache_enabled=True, cache_version="v2", retry_attempts=2, alias="shown", image_spec=image
    )
    def fn() -> None: ...

    options = fn.options
    assert (options.cache_enabled, options.cache_version, options.retries.attempts) == (True, "v2", 2)
    assert (fn.name, options.image_spec) == ("shown", image)


def test_task_keeps_the_face_of_its_function() -> None:
    assert (add.__name__, add.__doc__, add.__wrapped__) == ("add", "Adds.", add.fn)  # type: ignore[attr-defined]  # set at run time
    assert str(add.signature).startswith("(x: 'int'")
    assert pickle.loads(pickle.dumps(add)) is add


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"retires": 1}, "unknown task option retires"),
        ({"retry_attempts": 1, "retries": Retry(2)}, "either retry_attempts or retries"),
        ({"timeout_seconds": 0}, "timeout_seconds=0"),
        ({"cache_ttl_seconds": -1}, "cache_ttl_seconds=-1"),
        ({"retry_attempts": -1}, "attempts=-1"),
        ({"io": "marshal"}, "io='marshal'"),
        ({"config": "process"}, "must be an executor config"),
    ],
)
def test_wrong_options_are_refused_at_decoration(options: dict[str, Any], error: str) -> None:
    with pytest.raises((TypeError, ValueError), match=error):
        uniflow.task(**options)


def test_overrides_merge_and_leave_the_task_alone() -> None:
    @uniflow.task(Cluster(head_cpu=4), retries=Retry(3, backoff_seconds=9), cache_enabled=True, timeout_seconds=5)
    def fn() -> None: ...

    changed = fn.with_overrides(
        config=Cluster(worker_instances=2), retry_attempts=1, alias="other", cache_enabled=False
    )
    assert changed.options.config == Cluster(head_cpu=4, worker_instances=2)
    assert changed.options.retries == Retry(1, backoff_seconds=9)
    assert (changed.name, changed.options.timeout_seconds, changed.options.cache_enabled) == ("other", 5, False)
    assert fn.options.config == Cluster(head_cpu=4)
    assert fn.with_overrides(config=Process(cpu=2)).options.config == Process(cpu=2)


def test_resources_come_from_the_config() -> None:
    assert TaskOptions().resources == Resources()
    assert TaskOptions(InProcess()).executor == "inprocess"
    assert Process(cpu=0.5, memory="1.5Gi", gpu=1).resources() == Resources(0.5, 3 * 2**29, 1.0)
    assert Process(memory=1000).resources().memory_bytes == 1000
    for wrong in ("lots", "-1Gi", "1 GB", ""):
        with pytest.raises(ValueError, match="memory="):
            Process(memory=wrong)
    with pytest.raises(ValueError, match="cpu=-1"):
        Process(cpu=-1)


def test_plain_call_outside_of_a_run() -> None:
    assert add(1, 2, 3, z=4) == 10
    assert add.submit(add.submit(1), 2).result() == 4
    assert add.map([1, 2], [3, 4]).result() == [4, 6]
    failed = fail.submit("no")
    assert failed.done()
    assert isinstance(failed.exception(), ValueError)
    with pytest.raises(ValueError, match="no"):
        failed.result()


def test_call_in_a_run_is_a_step(run: MemoryRun) -> None:
    assert add(1) == 2
    assert [task.name for _, task, _, _ in run.calls.values()] == ["add"]
    with pytest.raises(UserCodeError, match="boom"):
        fail("boom")


def test_call_in_a_task_is_a_plain_call(run: MemoryRun) -> None:
    assert outer(5) == [6, 7, [6, 7], True]
    assert len(run.calls) == 1


def test_future_as_an_argument_is_a_dependency(run: MemoryRun) -> None:
    first = add.submit(1)
    second = add.submit(first, first)
    third = add.submit(fail.submit("bad"))
    assert second.result() == 4
    with pytest.raises(UserCodeError, match="bad"):
        third.result()


@uniflow.task
def total(groups: dict[str, list[int]] | list[int]) -> int:
    return sum(groups) if type(groups) is list else sum(map(sum, groups.values()))  # type: ignore[union-attr, arg-type]


@pytest.mark.parametrize("where", ["in a run", "in plain Python"])
def test_what_map_gave_is_a_list_to_the_next_task(where: str, request: pytest.FixtureRequest) -> None:
    if where == "in a run":
        request.getfixturevalue("run")
    parts = add.map([1, 2, 3])
    assert total.submit(parts).result() == 9
    assert total.submit({"a": parts, "b": parts}).result() == 18


def test_call_that_does_not_fit_is_refused_before_it_is_a_step(run: MemoryRun) -> None:
    with pytest.raises(ArgumentsError, match=r"task fail\(text: 'str'\) -> 'int': missing a required argument: 'text'"):
        fail.submit()
    with pytest.raises(ValueError, match="shorter"):
        add.map([1, 2], [1])
    with pytest.raises(TypeError, match="at least one iterable"):
        add.map()
    assert all(task is not fail for _, task, _, _ in run.calls.values())


def test_call_has_one_canonical_form() -> None:
    assert add.bind((1,), {"y": 2}) == add.bind((1, 2), {}) == add.bind((), {"y": 2, "x": 1}) == ((1, 2), {})


def test_methods_and_classes_are_refused() -> None:
    class Holder:
        @uniflow.task
        def method(self) -> None: ...

        @staticmethod
        @uniflow.task
        def static(x: int) -> int:
            return x

    with pytest.raises(TypeError, match="is a method"):
        _ = Holder().method
    assert Holder().static(3) == 3
    with pytest.raises(TypeError, match="decorates a function"):
        uniflow.task(Holder)


def test_options_are_complete_and_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        TaskOptions().alias = "x"  # type: ignore[misc]  # that is the test
