"""The collector frees what nothing names, and nothing else: over real objects, a real store, and real runs."""

from __future__ import annotations

import dataclasses
import json
import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.blobs import s3_server

from michelangelo import errors
from michelangelo.apiserver import auth, keyfiles
from michelangelo.app.blob_collector import CLAIM_SECONDS, MIN_AGE_SECONDS, BlobCollector, Collected, Schedule
from michelangelo.app.platform import Platform, ensure_project
from michelangelo.app.serve import Server
from michelangelo.app.settings import Settings
from michelangelo.blobs.blob_store import digest_of
from michelangelo.blobs.local import LocalBlobStore
from michelangelo.blobs.memory import MemoryBlobStore
from michelangelo.blobs.remote import RemoteBlobStore
from michelangelo.blobs.s3 import REFRESH_SECONDS
from michelangelo.client import kubeconfig
from michelangelo.client.transport import Transport
from michelangelo.runtime import leases

if TYPE_CHECKING:
    from tests.app.conftest import Desk

DAY = 86400.0
OLD = 3 * DAY


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    with Platform.open(Settings(home=tmp_path / "home")) as opened:
        ensure_project(opened.client, "demo")
        yield opened


def put(platform: Platform, data: bytes, *, age_seconds: float = OLD) -> str:
    """Store a blob that looks as old as that."""
    blobs = platform.blobs
    assert isinstance(blobs, LocalBlobStore)
    digest = blobs.put(data).digest
    then = blobs.now() - age_seconds
    os.utime(blobs.path(digest), (then, then))
    return digest


def create(platform: Platform, kind: str, name: str, spec: Any, **fields: Any) -> Any:
    versions = {"Lease": "coordination.k8s.io/v1"}
    metadata = {"name": name, "namespace": "demo", **fields.pop("metadata", {})}
    document = {"apiVersion": versions.get(kind, "michelangelo.api/v2"), "kind": kind, "metadata": metadata}
    return platform.client.create({**document, "spec": spec, **fields})


def cached(platform: Platform, name: str, digest: str, **spec: Any) -> None:
    output = {"$codec": "bytes", "blob": digest, "size": 1}
    create(platform, "CachedOutput", name, {"type": "Variable", "output": output, **spec})


def later(days: float) -> Any:
    return lambda: datetime.now(UTC) + timedelta(days=days)


def test_what_nothing_names_is_freed_and_counted(platform: Platform) -> None:
    gone, young = put(platform, b"gone"), put(platform, b"young", age_seconds=60)
    named = put(platform, b"named")
    cached(platform, "co-1", named)
    dry = platform.collector.collect(dry_run=True)
    assert (dry.blobs, dry.bytes) == (1, 4)
    assert platform.blobs.has(gone)
    done = platform.collector.collect()
    assert (done.blobs, done.bytes, done.kept_blobs, done.kept_bytes) == (1, 4, 2, 10)
    assert not platform.blobs.has(gone)
    assert platform.blobs.has(young)
    assert platform.blobs.has(named)
    assert platform.collector.collect().blobs == 0


def test_blobs_of_every_kind_of_object_stay(platform: Platform) -> None:
    digests = {where: put(platform, where.encode()) for where in ("source", "argument", "input", "output", "inner")}
    manifest = {"filePath": "flow.py", "uniflowFunction": "flow", "uniflowTar": digests["source"]}
    create(platform, "Pipeline", "train", {"manifest": manifest})
    run = {"pipelineSpec": {"manifest": manifest}, "input": {"kwArgs": {"x": {"blob": digests["argument"]}}}}
    create(platform, "PipelineRun", "run-1", run)
    tree = {"$codec": "tree", "blob": digests["output"], "size": 1, "blobs": [digests["inner"]]}
    spec = {"pipelineRun": "run-1", "step": "s", "attempt": 1, "type": "Task", "task": "t", "fingerprint": "f"}
    create(
        platform,
        "TaskRun",
        "run-1-0123456789ab-1",
        {**spec, "inputs": {"args": [{"$codec": "bytes", "blob": digests["input"], "size": 1}], "kwargs": {}}},
        status={"state": "Succeeded", "output": tree},
        metadata={"labels": {"michelangelo/pipeline-run": "run-1"}},
    )
    assert platform.collector.collect().blobs == 0
    platform.client.delete("TaskRun", "run-1-0123456789ab-1", namespace="demo")
    platform.collector.collect()
    assert {where for where, digest in digests.items() if platform.blobs.has(digest)} == {"source", "argument"}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    tree=st.recursive(
        st.none() | st.integers(-9, 9) | st.text(max_size=5) | st.integers(0, 7).map(lambda n: digest_of(b"%d" % n)),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc$", max_size=4), inner, max_size=4),
        max_leaves=12,
    )
)
def test_whatever_an_object_names_stays_wherever_it_stands(platform: Platform, tree: Any) -> None:
    digests = {put(platform, b"%d" % number) for number in range(8)}
    create(platform, "CachedOutput", "co-any", {"type": "Variable", "output": {"x": tree}})
    try:
        platform.collector.collect()
        text = repr(tree)
        assert {one for one in digests if platform.blobs.has(one)} == {one for one in digests if one in text}
    finally:
        platform.client.delete("CachedOutput", "co-any", namespace="demo")


def test_reference_that_moves_during_the_listing_is_seen(platform: Platform) -> None:
    """From a TaskRun into a Pipeline, after the Pipelines were listed and before the TaskRuns are."""
    digest = put(platform, b"moving")
    spec = {"pipelineRun": "run-1", "step": "s", "attempt": 1, "type": "Task", "task": "t", "fingerprint": "f"}
    leaf = {"$codec": "bytes", "blob": digest, "size": 6}
    name, label = "run-1-0123456789ab-1", {"labels": {"michelangelo/pipeline-run": "run-1"}}
    create(platform, "TaskRun", name, spec, status={"state": "Succeeded", "output": leaf}, metadata=label)
    listed: list[str] = []

    class Mover:
        def list(self, kind: str, **selection: Any) -> Any:
            listed.append(kind)
            if kind == "TaskRun" and listed.count(kind) == 1:
                assert "Pipeline" in listed
                manifest = {"filePath": "flow.py", "uniflowFunction": "flow", "uniflowTar": digest}
                create(platform, "Pipeline", "moved", {"manifest": manifest})
                platform.client.delete("TaskRun", name, namespace="demo")
            return platform.client.list(kind, **selection)

    assert BlobCollector(Mover(), platform.blobs).collect().blobs == 0  # type: ignore[arg-type]  # it only lists
    assert platform.blobs.has(digest)


def test_cached_outputs_past_their_time_go_with_their_blobs(platform: Platform) -> None:
    names = {name: put(platform, name.encode()) for name in ("seconds", "days", "forever", "long")}
    cached(platform, "co-seconds", names["seconds"], ttlSeconds=60)
    cached(platform, "co-days", names["days"], ttlInDays=1)
    cached(platform, "co-forever", names["forever"])
    cached(platform, "co-long", names["long"], ttlInDays=30)
    collector = BlobCollector(platform.client, platform.blobs, now=later(2))
    assert collector.collect(dry_run=True).cached_outputs == 2
    done = collector.collect()
    assert (done.cached_outputs, done.blobs) == (2, 2)
    left = {obj["metadata"]["name"] for obj in platform.client.list("CachedOutput", namespace="demo").items}
    assert left == {"co-forever", "co-long"}


def test_what_a_run_under_way_may_be_about_to_name_stays(platform: Platform) -> None:
    manifest = {"filePath": "flow.py", "uniflowFunction": "flow"}
    run = create(platform, "PipelineRun", "run-1", {"pipelineSpec": {"manifest": manifest}})
    lease = leases.of_run(platform.client, run)
    assert lease.acquire()
    store = MemoryBlobStore()
    before = store.put(b"before")
    store._touched[before.digest] -= OLD + 10 * DAY
    store.put(b"since")
    store.now = lambda: datetime.now(UTC).timestamp() + OLD  # type: ignore[method-assign]  # three days from now
    collector = BlobCollector(platform.client, store, now=later(3))
    assert collector.collect().blobs == 1
    assert [blob.size for blob in store.iterate()] == [len(b"since")]
    lease.release()
    assert collector.collect().blobs == 1


def test_logs_of_deleted_runs_go(platform: Platform) -> None:
    manifest = {"filePath": "flow.py", "uniflowFunction": "flow"}
    create(platform, "PipelineRun", "run-1", {"pipelineSpec": {"manifest": manifest}})
    for name in ("run-1", "run-deleted", "run-being-made"):
        folder = platform.logs / "demo" / name
        folder.mkdir(parents=True)
        (folder / "x.log").write_text("x")
        if name != "run-being-made":
            os.utime(folder, (1, 1))
    assert platform.collector.collect().logs == 1
    assert sorted(os.listdir(platform.logs / "demo")) == ["run-1", "run-being-made"]


def test_age_that_would_be_unsafe_is_refused(platform: Platform) -> None:
    assert CLAIM_SECONDS + REFRESH_SECONDS <= MIN_AGE_SECONDS
    for age in (0.0, 60.0, MIN_AGE_SECONDS - 1, float("nan")):
        with pytest.raises(errors.SettingsError, match="younger than 60 minutes stay"):
            platform.collector.collect(age_seconds=age)


def test_store_without_ages_is_not_collected(platform: Platform) -> None:
    with pytest.raises(errors.StorageError, match="cannot be collected"):
        BlobCollector(platform.client, RemoteBlobStore("memory://none")).collect()


def test_store_of_two_platforms_is_not_collected_by_either(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/shared"
    with (
        Platform.open(Settings(home=tmp_path / "ann", storage_url=url)) as ann,
        Platform.open(Settings(home=tmp_path / "bob", storage_url=url)) as bob,
    ):
        for one, other in ((ann, "bob"), (bob, "ann")):
            with pytest.raises(errors.StorageError, match=f"shared with other platforms.*{tmp_path}/{other}"):
                one.collector.collect()


def test_real_run_keeps_its_data_and_can_use_it_afterwards(desk: Desk) -> None:
    flow = desk.write(
        "flow.py",
        """
        from michelangelo import uniflow

        @uniflow.task(cache_enabled=True)
        def produce() -> bytes:
            print("ran")
            return b"p" * 100_000

        @uniflow.workflow
        def flow() -> int:
            return len(produce())

        if __name__ == "__main__":
            print(uniflow.main(flow))
        """,
    )
    assert desk.run(flow)[0] == 0
    with Platform.open(desk.settings) as platform:
        for blob in list(platform.blobs.iterate()):
            path = platform.blobs.path(blob.digest)  # type: ignore[attr-defined]  # a folder
            os.utime(path, (1, 1))
        done = platform.collector.collect()
        assert (done.blobs, done.kept_blobs > 0) == (0, True)
        touched = {blob.digest: age for blob, age in platform.blobs.ages()}  # type: ignore[attr-defined]
    code, out, err = desk.run(flow)
    assert (code, out) == (0, "100000\n"), err
    assert [run["spec"]["task"] for run in desk.task_runs() if run["status"]["state"] == "Cached"] == ["produce"]
    with Platform.open(desk.settings) as platform:
        digest = digest_of(b"p" * 100_000)
        now_touched = {blob.digest: age for blob, age in platform.blobs.ages()}  # type: ignore[attr-defined]
        assert now_touched[digest] > touched[digest] + DAY, "who takes it from the cache claims it"


def test_cached_data_that_is_gone_is_made_again(desk: Desk) -> None:
    flow = desk.write(
        "flow.py",
        """
        from michelangelo import uniflow

        @uniflow.task(cache_enabled=True)
        def produce() -> bytes:
            return b"p" * 100_000

        @uniflow.workflow
        def flow() -> int:
            return len(produce())

        if __name__ == "__main__":
            print(uniflow.main(flow))
        """,
    )
    assert desk.run(flow)[0] == 0
    with Platform.open(desk.settings) as platform:
        platform.blobs.delete(digest_of(b"p" * 100_000))
    code, out, err = desk.run(flow)
    assert (code, out) == (0, "100000\n"), err


def test_s3_is_collected_too(tmp_path: Path) -> None:
    with s3_server.serving() as server, Platform.open(Settings(home=tmp_path / "home")) as platform:
        ensure_project(platform.client, "demo")
        bucket = server.bucket()
        store = server.store(bucket)
        gone, named = store.put(b"gone").digest, store.put(b"named").digest
        for digest in (gone, named):
            server.age(bucket, digest, OLD)
        cached(platform, "co-1", named)
        done = BlobCollector(platform.client, store).collect()
        assert (done.blobs, done.kept_blobs) == (1, 1)
        assert not store.has(gone)
        assert store.get(named) == b"named"
        server.close()


def test_schedule_collects_on_the_leader_only_and_again_after_a_failure() -> None:
    calls: list[str] = []
    enough = threading.Event()
    leading = [False, True, True, True]

    def is_leading() -> bool:
        return leading.pop(0) if leading else True

    def collect() -> Collected:
        calls.append("collect")
        if len(calls) >= 3:
            enough.set()
        if len(calls) == 1:
            raise errors.StorageError("not now")
        return Collected()

    schedule = Schedule(collect, every_seconds=0.001, is_leading=is_leading)
    schedule.start()
    assert enough.wait(30)
    schedule.stop()
    assert not leading
    Schedule(lambda: pytest.fail("never"), every_seconds=0, is_leading=lambda: True).stop()


def test_server_collects_for_its_owner_and_not_for_a_run(tmp_path: Path) -> None:
    home = Settings(home=tmp_path / "home", port=0)
    server = Server(home)
    server.start()
    endpoint = kubeconfig.load(home.kubeconfig)
    owner = Transport(endpoint)
    tokens = auth.RunTokens(keyfiles.ensure_key(home.run_key))
    token = tokens.issue(auth.RunScope("local", "run-1", "uid"), lifetime_seconds=60)
    run = Transport(dataclasses.replace(endpoint, token=token))
    try:
        with Platform.open(home) as platform:
            digest = put(platform, b"garbage")
            assert json.loads(owner.send("POST", "/blobs/collect", query={"dryRun": "true"}))["blobs"] == 1
            with pytest.raises(errors.ForbiddenError, match="cannot collect blobs"):
                run.send("POST", "/blobs/collect")
            for query, message in (({"olderThanSeconds": "soon"}, "number"), ({"olderThanSeconds": "5"}, "60 minutes")):
                with pytest.raises(errors.BadRequestError, match=message):
                    owner.send("POST", "/blobs/collect", query=query)
            with pytest.raises(errors.MethodNotAllowedError):
                owner.send("GET", "/blobs/collect")
            assert platform.blobs.has(digest)
            assert json.loads(owner.send("POST", "/blobs/collect"))["blobs"] == 1
            assert not platform.blobs.has(digest)
    finally:
        owner.close()
        run.close()
        server.stop()
