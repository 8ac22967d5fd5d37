"""What an attempt asks of Ray, how large a local Ray is made for it, and what people are told that is missing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from michelangelo.executors.base import Attempt, CallTarget, Resources
from michelangelo.executors.ray.request import Offer, Request, shortage
from michelangelo.uniflow import config as configs
from michelangelo.uniflow.config import TaskConfig
from michelangelo.uniflow.plugins.ray import RayTask
from michelangelo.uniflow.plugins.spark import SparkTask

counts = st.integers(0, 64)
tasks = st.builds(
    RayTask,
    head_cpu=st.none() | counts,
    head_gpu=st.none() | counts,
    head_memory=st.none() | st.sampled_from(["512Mi", "2Gi"]),
    worker_cpu=st.none() | counts,
    worker_instances=st.none() | st.integers(0, 5),
    custom_resources=st.none() | st.just({"fpga": 1.0}),
)


def request_of(task: RayTask, address: str = "") -> Request:
    asked = task.resources()
    attempt = Attempt(
        id="a",
        target=CallTarget("/f.py", "f", "g"),
        arguments={},
        resources=Resources(asked.cpu, asked.memory_bytes, asked.gpu),
        config=task.settings(),
    )
    return Request.of(attempt, address=address)


def test_fields_become_bundles() -> None:
    task = RayTask(head_cpu=2, head_memory="1Gi", worker_cpu=4, worker_gpu=1, worker_instances=2)
    head, *workers = request_of(task).bundles()
    assert head == {"CPU": 2.0, "memory": float(1 << 30)}
    assert workers == [{"CPU": 4.0, "GPU": 1.0}] * 2


def test_task_without_fields_takes_one_cpu() -> None:
    assert request_of(RayTask()).bundles() == [{"CPU": 1.0}]


def test_placement_is_for_clusters_only() -> None:
    task = RayTask(gpu_sku="A100", zone="eu-1")
    assert (request_of(task).accelerator, request_of(task).zone) == ("", "")
    assert (request_of(task, "h:1").accelerator, request_of(task, "h:1").zone) == ("A100", "eu-1")
    assert request_of(RayTask(address="own:2"), "h:1").address == "own:2"


@given(st.lists(tasks, min_size=1, max_size=5))
def test_offer_covers_what_it_was_made_for(asked: list[RayTask]) -> None:
    requests = [request_of(task) for task in asked]
    offer = Offer({"CPU": 4.0, "memory": float(8 << 30)})
    for request in requests:
        offer = offer.with_room_for(request)
    assert all(offer.covers(request) for request in requests)
    assert all(Request.from_json(request.to_json()) == request for request in requests)


@pytest.mark.parametrize(
    ("task", "free", "said"),
    [
        (RayTask(head_cpu=64), {"CPU": 3.0}, "needs 64 CPU; the cluster has 8, 3 free"),
        (RayTask(head_cpu=4), {"CPU": 3.0}, "waits for 4 CPU; 3 of 8 are free"),
        (RayTask(head_cpu=4), {}, "waits for 4 CPU; 0 of 8 are free"),
        (RayTask(head_memory="64Gi"), {"CPU": 8.0}, "needs 64.0 GiB of memory; the cluster has 16.0 GiB, 0.0 GiB free"),
        (RayTask(head_cpu=6), {"CPU": 8.0}, "needs a node with 6 CPU; none of the 2 nodes has that"),
        (RayTask(runtime_env={"pip": ["x"]}), {"CPU": 8.0}, "waits for its environment"),
        (RayTask(), {"CPU": 8.0}, "waits for a worker process"),
    ],
)
def test_shortage_says_what_is_missing(task: RayTask, free: dict[str, float], said: str) -> None:
    total = {"CPU": 8.0, "memory": float(16 << 30)}
    nodes = [{"CPU": 4.0, "memory": float(8 << 30)}] * 2
    assert shortage(request_of(task), total, free, nodes) == said


@pytest.mark.parametrize(
    ("kind", "fields", "said"),
    [
        (RayTask, {"head_cpu": -1}, "head_cpu=-1"),
        (RayTask, {"head_memory": "much"}, "head_memory='much'"),
        (RayTask, {"worker_instances": 1.5}, "worker_instances=1.5"),
        (RayTask, {"runtime_env": {"pip": object()}}, "runtime_env="),
        (SparkTask, {"driver_memory": "-1Gi"}, "driver_memory='-1Gi'"),
        (SparkTask, {"executor_cpu": True}, "executor_cpu=True"),
    ],
)
def test_wrong_field_is_named(kind: type[TaskConfig], fields: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError) as caught:
        kind(**fields)
    assert said in str(caught.value)


def test_overrides_merge_field_by_field() -> None:
    merged = configs.merge(RayTask(head_cpu=2, head_memory="1Gi"), RayTask(head_cpu=4))
    assert merged == RayTask(head_cpu=4, head_memory="1Gi")
    spark = configs.merge(SparkTask(driver_cpu=2), SparkTask(driver_memory="1Gi"))
    assert spark == SparkTask(driver_cpu=2, driver_memory="1Gi")


def test_variables_set_what_is_open_and_override_what_is_given() -> None:
    variables = {
        "RAY_DEFAULT_HEAD_CPU": "8",
        "RAY_DEFAULT_WORKER_INSTANCES": "3",
        "RAY_OVERRIDE_HEAD_MEMORY.flow.train": "2Gi",
        "SPARK_DEFAULT_DRIVER_CPU": "5",
    }
    task = RayTask(head_cpu=2, head_memory="1Gi")
    assert task.with_variables(variables, "flow.train") == RayTask(head_cpu=2, head_memory="2Gi", worker_instances=3)
    assert task.with_variables(variables, "flow.other") == RayTask(head_cpu=2, head_memory="1Gi", worker_instances=3)
    assert SparkTask().with_variables(variables, "flow.train") == SparkTask(driver_cpu=5)
    with pytest.raises(ValueError, match="RAY_DEFAULT_HEAD_CPU='lots'"):
        RayTask().with_variables({"RAY_DEFAULT_HEAD_CPU": "lots"}, "flow.train")
