"""Get, list and watch: pages that are consistent, selectors, and events that are neither lost nor told twice."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from michelangelo import errors
from michelangelo.api.v2 import registry
from michelangelo.apiserver.options import ListOptions, WatchOptions
from michelangelo.apiserver.patching import Patch
from michelangelo.apiserver.verbs import ApiServer
from michelangelo.apiserver.watching import BATCH, WatchCursor
from michelangelo.storage.memory import MemoryStore

if TYPE_CHECKING:
    from tests.apiserver.conftest import Platform

PIPELINE = registry.get("Pipeline")


def all_pages(platform: Platform, limit: int, **selectors: str) -> list[str]:
    names: list[str] = []
    token = ""
    while True:
        options = ListOptions(limit=limit, continue_token=token, **selectors)
        page = platform.api.list(PIPELINE, "team", options)
        assert len(page.items) <= limit
        names += [obj["metadata"]["name"] for obj in page.items]
        token = page.continue_token
        if not token:
            return names


def seen(cursor: WatchCursor) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    while events := cursor.poll():
        found += [(event.type, event.object["metadata"]["name"]) for event in events]
    return found


def watch(platform: Platform, **options: Any) -> WatchCursor:
    return platform.api.watch(PIPELINE, "team", WatchOptions(**options))


def label(platform: Platform, name: str, value: str | None) -> None:
    platform.patch("Pipeline", name, Patch("merge", {"metadata": {"labels": {"color": value}}}))


def test_list_of_one_namespace_and_of_all(platform: Platform) -> None:
    platform.create("Pipeline", "a")
    platform.namespace = "team-b"
    platform.open()
    platform.create("Pipeline", "b")
    assert platform.names("Pipeline") == ["b"]
    everywhere = platform.api.list(PIPELINE)
    assert {obj["metadata"]["name"] for obj in everywhere.items} == {"a", "b"}
    assert everywhere.resource_version == str(platform.api.revision())


def test_pages_hold_everything_once(platform: Platform) -> None:
    for number in range(7):
        platform.create("Pipeline", f"p{number}")
    first = platform.api.list(PIPELINE, "team", ListOptions(limit=3))
    assert first.remaining == 4
    assert all_pages(platform, 3) == [f"p{number}" for number in range(7)]
    assert all_pages(platform, 7) == [f"p{number}" for number in range(7)]


def test_pages_show_the_state_of_the_first_one(platform: Platform) -> None:
    for number in range(4):
        platform.create("Pipeline", f"p{number}", labels={"color": "red"})
    selected = ListOptions(label_selector="color=red", limit=1)
    first = platform.api.list(PIPELINE, "team", selected)
    platform.create("Pipeline", "p00", labels={"color": "red"})
    label(platform, "p1", "blue")
    platform.delete("Pipeline", "p2")
    rest = platform.api.list(PIPELINE, "team", ListOptions("color=red", "", 10, first.continue_token))
    assert [obj["metadata"]["name"] for obj in rest.items] == ["p1", "p2", "p3"]
    assert rest.items[0]["metadata"]["labels"] == {"color": "red"}
    assert rest.resource_version == first.resource_version


def test_page_that_was_compacted_away_expires(platform: Platform, store: Any) -> None:
    for number in range(3):
        platform.create("Pipeline", f"p{number}")
    token = platform.api.list(PIPELINE, "team", ListOptions(limit=1)).continue_token
    platform.delete("Pipeline", "p2")
    store.compact(platform.api.revision())
    with pytest.raises(errors.ExpiredError, match="start a new list"):
        platform.api.list(PIPELINE, "team", ListOptions(limit=1, continue_token=token))


def token_of(document: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).rstrip(b"=").decode()


@pytest.mark.parametrize(
    ("options", "refusal"),
    [
        (ListOptions(continue_token="rubbish!"), errors.BadRequestError),
        (ListOptions(continue_token="é"), errors.BadRequestError),
        (ListOptions(continue_token=token_of([1])), errors.BadRequestError),
        (ListOptions(continue_token=token_of({"v": "meta.k8s.io/v1", "rv": "1", "start": ""})), errors.BadRequestError),
        (ListOptions(continue_token=token_of({"v": "v0", "rv": 1, "start": ""})), errors.BadRequestError),
        (
            ListOptions(continue_token=token_of({"v": "meta.k8s.io/v1", "rv": 10**9, "start": "x"})),
            errors.ExpiredError,
        ),
        (ListOptions(limit=-1), errors.BadRequestError),
        (ListOptions(resource_version="x"), errors.BadRequestError),
        (ListOptions(resource_version="-1"), errors.BadRequestError),
        (ListOptions(resource_version="9" * 30), errors.BadRequestError),
        (ListOptions(resource_version="1", resource_version_match="Nearly"), errors.BadRequestError),
        (ListOptions(resource_version_match="Exact"), errors.BadRequestError),
        (ListOptions(label_selector="a in (b"), errors.BadRequestError),
        (ListOptions(label_selector="=x"), errors.BadRequestError),
        (ListOptions(field_selector="spec.nothing=1"), errors.BadRequestError),
        (ListOptions(field_selector="metadata.uid=1"), errors.BadRequestError),
        (ListOptions(field_selector="spec.type"), errors.BadRequestError),
    ],
)
def test_bad_list_options_are_refused(platform: Platform, options: ListOptions, refusal: type[errors.ApiError]) -> None:
    with pytest.raises(refusal):
        platform.api.list(PIPELINE, "team", options)


def test_list_at_an_exact_revision(platform: Platform) -> None:
    made = platform.create("Pipeline", "a")
    platform.create("Pipeline", "b")
    options = ListOptions(resource_version=made["metadata"]["resourceVersion"], resource_version_match="Exact")
    assert platform.names("Pipeline", options) == ["a"]


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ("color=red", ["a"]),
        ("color==red,size=l", []),
        ("color!=red", ["b", "c"]),
        ("color in (red,blue)", ["a", "b"]),
        ("color notin (red)", ["b", "c"]),
        ("color", ["a", "b"]),
        ("!color", ["c"]),
        ("", ["a", "b", "c"]),
    ],
)
def test_label_selectors(platform: Platform, selector: str, names: list[str]) -> None:
    platform.create("Pipeline", "a", labels={"color": "red"})
    platform.create("Pipeline", "b", labels={"color": "blue"})
    platform.create("Pipeline", "c")
    assert platform.names("Pipeline", ListOptions(label_selector=selector)) == names
    assert all_pages(platform, 1, label_selector=selector) == names


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ("metadata.name=a", ["a"]),
        ("metadata.name!=a", ["ab", "b"]),
        ("metadata.namespace=team,metadata.name=b", ["b"]),
        ("metadata.namespace=other", []),
        ("spec.manifest.filePath=x.py", ["b"]),
        ("spec.manifest.filePath!=x.py,metadata.name!=a", ["ab"]),
        ("status.state=", ["a", "ab", "b"]),
    ],
)
def test_field_selectors(platform: Platform, selector: str, names: list[str]) -> None:
    platform.create("Pipeline", "a")
    platform.create("Pipeline", "ab")
    platform.create("Pipeline", "b", spec={"manifest": {"filePath": "x.py"}})
    assert platform.names("Pipeline", ListOptions(field_selector=selector)) == names


def test_field_selectors_of_events(platform: Platform) -> None:
    platform.create("Event", "one", reason="Started")
    platform.create("Event", "two", involvedObject={"kind": "Pipeline", "name": "other"})
    assert platform.names("Event", ListOptions(field_selector="involvedObject.name=flow,reason=Started")) == ["one"]


def test_watch_starts_with_what_is_there(platform: Platform) -> None:
    platform.create("Pipeline", "a")
    cursor = watch(platform)
    assert seen(cursor) == [("ADDED", "a")]
    platform.patch("Pipeline", "a", Patch("merge", {"spec": {"description": "x"}}))
    platform.delete("Pipeline", "a")
    assert seen(cursor) == [("MODIFIED", "a"), ("DELETED", "a")]


def test_watch_after_a_revision_does_not_repeat_it(platform: Platform) -> None:
    made = platform.create("Pipeline", "a")
    platform.create("Pipeline", "b")
    cursor = watch(platform, resource_version=made["metadata"]["resourceVersion"])
    assert seen(cursor) == [("ADDED", "b")]
    assert cursor.resource_version == str(platform.api.revision())


def test_watch_shows_what_enters_and_leaves_its_selection(platform: Platform) -> None:
    platform.create("Pipeline", "a")
    platform.create("Pipeline", "b", labels={"color": "red"})
    cursor = watch(platform, label_selector="color=red")
    assert seen(cursor) == [("ADDED", "b")]
    label(platform, "a", "red")
    label(platform, "b", "blue")
    platform.patch("Pipeline", "a", Patch("merge", {"spec": {"description": "x"}}))
    platform.patch("Pipeline", "b", Patch("merge", {"spec": {"description": "x"}}))
    platform.delete("Pipeline", "b")
    assert seen(cursor) == [("ADDED", "a"), ("DELETED", "b"), ("MODIFIED", "a")]


def test_object_that_leaves_the_selection_is_shown_as_it_was(platform: Platform) -> None:
    platform.create("Pipeline", "a", labels={"color": "red"})
    cursor = watch(platform, label_selector="color=red", send_initial_events=False)
    label(platform, "a", "blue")
    (event,) = cursor.poll()
    assert event.object["metadata"]["labels"] == {"color": "red"}
    assert event.object["metadata"]["resourceVersion"] == str(platform.api.revision())


def test_watch_of_one_name_sees_no_other(platform: Platform) -> None:
    cursor = watch(platform, field_selector="metadata.name=a")
    platform.create("Pipeline", "ab")
    platform.create("Pipeline", "a")
    assert seen(cursor) == [("ADDED", "a")]


def test_watch_of_a_revision_that_was_compacted_away_expires(platform: Platform, store: Any) -> None:
    made = platform.create("Pipeline", "a")
    label(platform, "a", "red")
    label(platform, "a", "blue")
    cursor = watch(platform, resource_version=made["metadata"]["resourceVersion"])
    store.compact(platform.api.revision())
    with pytest.raises(errors.ExpiredError, match="too old resource version"):
        cursor.poll()


def test_idle_watch_survives_a_compaction(platform: Platform, store: Any) -> None:
    cursor = watch(platform)
    assert seen(cursor) == []
    for number in range(5):
        platform.create("Event", f"e{number}")
    assert seen(cursor) == []
    store.compact(platform.api.revision())
    platform.create("Pipeline", "a")
    assert seen(cursor) == [("ADDED", "a")]


def test_bookmark_says_how_far_the_watch_is(platform: Platform) -> None:
    cursor = watch(platform)
    assert seen(cursor) == []
    event = cursor.bookmark(initial_events_end=True)
    assert event.type == "BOOKMARK"
    assert event.object["metadata"]["resourceVersion"] == str(platform.api.revision())
    assert event.object["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


def test_long_initial_list_comes_in_batches(open_platform: Callable[[ApiServer], Platform]) -> None:
    store = MemoryStore()
    many = open_platform(ApiServer(store))
    for number in range(BATCH + 10):
        many.create("Pipeline", f"p{number:04}")
    cursor = many.api.watch(PIPELINE, "team")
    first = cursor.poll()
    assert len(first) == BATCH
    assert cursor.in_initial
    many.delete("Pipeline", "p0509")
    rest = seen(cursor)
    assert rest == [*(("ADDED", f"p{number:04}") for number in range(BATCH, BATCH + 10)), ("DELETED", "p0509")]
    store.close()


def test_subscription_tells_of_writes(platform: Platform) -> None:
    told = threading.Event()
    stop = platform.api.subscribe(lambda _revision: told.set())
    platform.create("Pipeline", "a")
    assert told.wait(20)
    stop()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["create", "red", "blue", "plain", "describe", "delete", "compact"]), st.sampled_from("abc")
        ),
        max_size=25,
    ),
    st.lists(st.integers(0, 25), max_size=4),
)
def test_watcher_that_reconnects_ends_with_the_state_of_a_list(
    open_platform: Callable[[ApiServer], Platform], steps: list[tuple[str, str]], breaks: list[int]
) -> None:
    """What a watcher knows from events alone is what a list shows, wherever it broke off and came back."""
    store = MemoryStore()
    platform = open_platform(ApiServer(store))
    options = {"label_selector": "color=red"}
    known: dict[str, Any] = {}
    cursor = watch(platform, **options)

    def follow() -> None:
        while events := cursor.poll():
            for event in events:
                name = event.object["metadata"]["name"]
                if event.type == "DELETED":
                    known.pop(name, None)
                else:
                    known[name] = event.object

    for number, (step, name) in enumerate(steps):
        if step == "compact":
            # Who lags behind a compaction has to list again; here nobody does.
            follow()
        apply(platform, store, step, name)
        if number in breaks:
            follow()
            cursor = watch(platform, resource_version=cursor.resource_version, **options)
    follow()
    listed = platform.api.list(PIPELINE, "team", ListOptions(label_selector="color=red"))
    assert known == {obj["metadata"]["name"]: obj for obj in listed.items}
    store.close()


def apply(platform: Platform, store: MemoryStore, step: str, name: str) -> None:
    try:
        match step:
            case "create":
                platform.create("Pipeline", name)
            case "red" | "blue":
                label(platform, name, step)
            case "plain":
                label(platform, name, None)
            case "describe":
                platform.patch("Pipeline", name, Patch("merge", {"spec": {"description": str(store.revision())}}))
            case "delete":
                platform.delete("Pipeline", name)
            case _:
                store.compact(store.revision())
    except (errors.AlreadyExistsError, errors.NotFoundError):
        return
