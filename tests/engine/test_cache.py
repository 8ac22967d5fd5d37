"""The cache in runs: what is found again, why something is not, and that equal work is done once."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from tests.engine.conftest import ScriptedExecutor, Site, in_thread, until

from michelangelo import errors, uniflow
from michelangelo.client.client import Object
from michelangelo.engine import cache_key
from michelangelo.engine.cache import Cache, Hit, Miss
from michelangelo.engine.cache_key import CacheKey
from michelangelo.engine.claims import Claims
from michelangelo.meta import labels
from michelangelo.runtime import leases
from michelangelo.uniflow import code_digest


@uniflow.task(cache_enabled=True, cache_ttl_seconds=1000.0)
def square(number: int) -> int:
    return number * number


@uniflow.workflow
def squaring(number: int) -> int:
    return square(number)


def test_second_run_takes_the_cached_output(site: Site) -> None:
    site.create("run-1")
    site.create("run-2")
    executor = site.executor()
    assert site.conduct(squaring, 5, executor=executor) == 25
    assert site.conduct(squaring, 5, run="run-2", executor=executor) == 25
    assert executor.started == ["square"]
    assert site.status("run-2")["stepCounts"] == {"total": 1, "cached": 1}
    cached = next(one for one in site.task_runs() if one["spec"]["pipelineRun"] == "run-2")
    assert cached["status"]["details"]["source"]["pipelineRun"] == "run-1"


def test_other_arguments_miss_the_cache_and_say_so(site: Site) -> None:
    site.create("run-1")
    site.create("run-2")
    site.conduct(squaring, 5)
    site.conduct(squaring, 6, run="run-2")
    missed = next(one for one in site.task_runs() if one["spec"]["pipelineRun"] == "run-2")
    assert "no output is cached" in missed["status"]["details"]["cacheMiss"]


@uniflow.task(cache_enabled=True)
def fail_cached() -> None:
    raise ValueError("never kept")


@uniflow.workflow
def failing_cached() -> None:
    fail_cached()


def test_failures_are_never_cached(site: Site) -> None:
    site.create()
    with pytest.raises(ValueError, match="never kept"):
        site.conduct(failing_cached)
    assert site.client.list("CachedOutput", namespace="team").items == []


def details(site: Site, run: str, task: str = "") -> Object:
    """Of the run's only TaskRun, or the one of a task."""
    (found,) = [
        one
        for one in site.task_runs()
        if one["spec"]["pipelineRun"] == run and (not task or one["spec"]["task"] == task)
    ]
    found_details: Object = found["status"]["details"]
    return found_details


RATE = 0.1


def scaled(value: float) -> float:
    return value * RATE


@uniflow.task(cache_enabled=True, cache_version="1")
def train(rows: list[int], depth: int = 3, *, api_token: str = "") -> float:
    return scaled(sum(rows)) + depth + len(api_token)


@uniflow.workflow
def training(rows: list[int], depth: int = 3, version: str = "1", api_token: str = "") -> float:
    return train.with_overrides(cache_version=version)(rows, depth, api_token=api_token)


def trained(site: Site, run: str, *args: Any) -> Object:
    site.create(run)
    site.conduct(training, *args, run=run)
    return details(site, run)


def test_parts_of_a_key_are_recorded(site: Site) -> None:
    key = trained(site, "run-1", [1, 2], 4)["cacheKey"]
    assert key["argumentParts"]["rows"]["value"] == "[1, 2]"
    assert key["argumentParts"]["depth"]["value"] == "4"
    assert (key["task"], key["version"], key["python"]) == ("train", "1", code_digest.PYTHON)
    names = [name.rpartition(":")[2] for name in key["codeParts"]]
    assert names == ["train", "scaled", "RATE"]
    parts = list(key["codeParts"].values())
    assert parts[1]["line"] == scaled.__code__.co_firstlineno
    assert (parts[2]["value"], parts[2]["file"].rpartition("/")[2]) == ("0.1", "test_cache.py")
    (kept,) = site.client.list("CachedOutput", namespace="team", label_selector=f"{labels.TASK}=train").items
    assert kept["spec"]["key"] == key


def test_miss_names_the_nearest_and_what_differs(site: Site) -> None:
    first = trained(site, "run-1", [1, 2], 3)
    assert "no success of train is cached" in first["cacheMiss"]
    assert "cacheNearest" not in first
    trained(site, "run-2", [5], 9, "0")
    missed = trained(site, "run-3", [1, 2], 4)
    nearest = missed["cacheNearest"]
    assert nearest["pipelineRun"] == "run-1"
    (difference,) = nearest["differences"]
    assert (difference["what"], difference["name"]) == ("argument", "depth")
    assert (difference["was"]["value"], difference["is"]["value"]) == ("3", "4")
    assert missed["cacheMiss"].endswith("the nearest, of run-1, differs in argument depth")


def test_nearest_is_found_among_many(site: Site) -> None:
    for number in range(30):
        trained(site, f"run-{number}", [number], 3)
    assert trained(site, "run-100", [17], 3, "2")["cacheNearest"]["pipelineRun"] == "run-17"
    assert trained(site, "run-101", [17], 5, "3")["cacheNearest"]["differences"]


def test_other_version_is_a_difference(site: Site) -> None:
    trained(site, "run-1", [1], 3)
    found = trained(site, "run-2", [1], 3, "2")["cacheNearest"]["differences"]
    assert found == [{"what": "version", "was": "1", "is": "2"}]


def test_changed_code_is_named_by_function_and_constant(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    trained(site, "run-1", [1], 3)
    monkeypatch.setitem(globals(), "RATE", 0.2)
    (difference,) = trained(site, "run-2", [1], 3)["cacheNearest"]["differences"]
    assert difference["what"] == "code"
    assert difference["name"].endswith(":RATE")
    assert (difference["was"]["value"], difference["is"]["value"]) == ("0.1", "0.2")


def test_values_that_look_like_secrets_are_not_shown(site: Site) -> None:
    found = trained(site, "run-1", [1], 3, "1", "hunter2")
    assert found["cacheKey"]["argumentParts"]["api_token"]["value"] == "(not shown)"
    (kept,) = site.client.list("CachedOutput", namespace="team").items
    assert "hunter2" not in str(kept)
    assert "hunter2" not in cache_key.short({"settings": {"password": "hunter2"}})


def test_values_are_cut_and_data_is_named_by_type_and_digest() -> None:
    assert len(cache_key.short("x" * 5000)) <= 200
    assert len(cache_key.short([["x" * 300] * 50] * 50)) <= 200
    leaf = {"$codec": "numpy", "type": "numpy:ndarray", "blob": "sha256:" + 64 * "a", "size": 80, "metadata": {"n": 10}}
    assert cache_key.short(leaf) == "<numpy:ndarray n=10 80 bytes sha256:aaaaaaaaaaaa>"
    assert cache_key.short({"frame": leaf}) == "{'frame': <numpy:ndarray n=10 80 bytes sha256:aaaaaaaaaaaa>}"


def test_requirements_are_part_of_the_key() -> None:
    plain = CacheKey("sha256:1", "sha256:2")
    assert plain.digest != CacheKey("sha256:1", "sha256:2", requirements=("a==1",)).digest
    assert CacheKey("sha256:1", "sha256:2", ttl_seconds=5.0, task="other").digest == plain.digest


def test_expired_and_deleted_outputs_say_so_and_are_replaced(site: Site) -> None:
    has_data = True
    cache = Cache(site.client, "team", lambda tree: has_data)
    key = CacheKey("sha256:1", "sha256:2", task="train")
    cache.keep(key, 1, run="run-1", step="a")
    has_data = False
    missed = cache.find(key)
    assert isinstance(missed, Miss)
    assert (missed.aspect, missed.found is not None) == ("data", True)
    cache.keep(key, 2, run="run-2", step="b")
    has_data = True
    found = cache.find(key)
    assert isinstance(found, Hit)
    assert (found.output, found.source["pipelineRun"]) == (2, "run-2")


@uniflow.workflow
def same_twice(number: int) -> list[int]:
    return [future.result() for future in [square.submit(number), square.submit(number), square.submit(number + 1)]]


def test_identical_steps_of_a_run_compute_once(site: Site) -> None:
    site.create()
    executor = site.executor()
    executor.held["square"] = threading.Event()
    thread, found = in_thread(lambda: site.conduct(same_twice, 4, executor=executor))
    until(lambda: len(executor.started) == 2)
    executor.held["square"].set()
    thread.join(20)
    assert found == [[16, 16, 25]]
    assert executor.started == ["square", "square"]
    assert site.status()["stepCounts"] == {"total": 3, "succeeded": 2, "cached": 1}


class OtherRun:
    """The driver of another run, `other`, as far as other runs see it: its lease, and a claim."""

    def __init__(self, site: Site, key: CacheKey) -> None:
        self.site = site
        self.key = key
        self.lease = leases.of_run(site.client, site.create("other"), duration_seconds=15)
        assert self.lease.acquire()
        run = site.client.get("PipelineRun", "other", namespace="team")
        self.claims = Claims(site.client, run, holder=self.lease.identity)
        assert self.claims.take(key.digest) is None

    def succeed(self, output: Any) -> None:
        Cache(self.site.client, "team", lambda tree: True).keep(self.key, output, run="other", step="square#1")
        self.claims.give_back(self.key.digest)


@pytest.fixture
def square_key(site: Site) -> CacheKey:
    """The key of square(5)."""
    site.create("probe")
    site.conduct(squaring, 5, run="probe")
    (made,) = site.client.list("CachedOutput", namespace="team").items
    site.client.delete("CachedOutput", made["metadata"]["name"], namespace="team")
    key = made["spec"]["key"]
    return CacheKey(key["code"], key["arguments"], key["version"], task="square")


def claimed(site: Site) -> list[str]:
    return [one["metadata"]["name"] for one in site.client.list("Lease", label_selector=labels.CACHE_CLAIM).items]


def waits(executor: ScriptedExecutor, site: Site) -> None:
    """Until run-1 waits for another one."""
    until(lambda: any("waiting for run other" in str(step.get("message")) for step in steps(site)))
    assert executor.started == []


def steps(site: Site) -> list[Object]:
    return site.status().get("steps") or []


def test_step_waits_for_a_run_that_computes_the_same(site: Site, square_key: CacheKey) -> None:
    site.create()
    other = OtherRun(site, square_key)
    executor = site.executor()
    thread, found = in_thread(lambda: site.conduct(squaring, 5, executor=executor))
    waits(executor, site)
    other.succeed(25)
    thread.join(20)
    assert found == [25]
    assert executor.started == []
    assert details(site, "run-1")["source"]["pipelineRun"] == "other"
    assert claimed(site) == []


def test_failure_of_who_computes_is_not_that_of_who_waits(site: Site, square_key: CacheKey) -> None:
    site.create()
    other = OtherRun(site, square_key)
    executor = site.executor()
    thread, found = in_thread(lambda: site.conduct(squaring, 5, executor=executor))
    waits(executor, site)
    other.claims.give_back(square_key.digest)
    thread.join(20)
    assert (found, executor.started, claimed(site)) == ([25], ["square"], [])


def test_claim_left_behind_by_a_run_that_has_ended_holds_nobody_up(site: Site, square_key: CacheKey) -> None:
    site.create()
    other = OtherRun(site, square_key)
    other.lease.release()
    assert site.conduct(squaring, 5) == 25
    assert claimed(site) == []


def test_who_waits_takes_over_when_the_other_one_has_died(site: Site, square_key: CacheKey) -> None:
    site.create()
    other = OtherRun(site, square_key)
    executor = site.executor()
    thread, found = in_thread(lambda: site.conduct(squaring, 5, executor=executor))
    waits(executor, site)
    # Its lease is another driver's now, which does not know of the claim.
    held = site.client.get("Lease", leases.run_lease_name("other"), namespace="team")
    held["spec"]["holderIdentity"] = "another"
    site.client.update(held)
    thread.join(20)
    assert (found, executor.started) == ([25], ["square"])
    assert other.lease.name == "pipelinerun-other"


def test_run_that_waits_is_killed_at_once(site: Site, square_key: CacheKey) -> None:
    site.create()
    OtherRun(site, square_key)
    executor = site.executor()
    thread, found = in_thread(lambda: site.conduct(squaring, 5, executor=executor))
    waits(executor, site)
    site.client.patch("PipelineRun", "run-1", {"spec": {"kill": True}}, namespace="team")
    thread.join(20)
    assert isinstance(found[0], errors.RunKilledError)
    assert (executor.started, site.status()["state"]) == ([], "Killed")


def test_killed_run_gives_its_claims_back(site: Site) -> None:
    site.create()
    executor = site.executor()
    executor.held["square"] = threading.Event()
    thread, _ = in_thread(lambda: site.conduct(squaring, 5, executor=executor))
    until(lambda: claimed(site))
    site.client.patch("PipelineRun", "run-1", {"spec": {"kill": True}}, namespace="team")
    thread.join(20)
    assert claimed(site) == []


def test_later_driver_of_a_run_takes_over_its_own_claims(site: Site, square_key: CacheKey) -> None:
    run = site.create()
    assert Claims(site.client, run, holder="an earlier driver").take(square_key.digest) is None
    executor = site.executor()
    assert site.conduct(squaring, 5, executor=executor) == 25
    assert (executor.started, claimed(site)) == (["square"], [])


def test_claims_of_a_dead_driver_are_cleared_and_those_of_other_runs_stay(site: Site) -> None:
    run, other = site.create(), site.create("run-2")
    dead, neighbour = Claims(site.client, run, holder="dead"), Claims(site.client, other, holder="another")
    for claims, key in ((dead, "a" * 40), (dead, "b" * 40), (neighbour, "c" * 40)):
        assert claims.take(key) is None
    later = Claims(site.client, run, holder="later")
    assert later.take("d" * 40) is None
    later.clear_left()
    assert claimed(site) == [f"cache-{key * 40}" for key in "cd"]


@uniflow.task(cache_enabled=True, retries=uniflow.Retry(attempts=2, backoff_seconds=0.001))
def flaky(number: int) -> int:
    attempts.append(number)
    if len(attempts) < 3:
        raise ValueError("not yet")
    return number


attempts: list[int] = []


@uniflow.workflow
def trying(number: int) -> int:
    return flaky(number)


def test_retries_compute_under_one_claim_and_success_is_kept(site: Site) -> None:
    attempts.clear()
    site.create()
    assert site.conduct(trying, 1) == 1
    assert len(attempts) == 3
    assert len(site.client.list("CachedOutput", namespace="team").items) == 1
    first, *later = sorted(site.task_runs(), key=lambda one: int(one["spec"]["attempt"]))
    assert "cacheKey" in first["status"]["details"]
    assert not any("cacheKey" in one["status"]["details"] for one in later)
