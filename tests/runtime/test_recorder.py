"""Events: written once per thing said, counted when it is said again, and never in the way."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

from michelangelo.client.client import Client, Object
from michelangelo.runtime.recorder import Recorder

Make = Callable[..., Object]


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 1, 31, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


def test_event_is_about_its_object(client: Client, pipeline: Make) -> None:
    about = pipeline("a")
    Recorder(client, "pipeline").event(about, "Normal", "Ready", "revision made")
    (event,) = client.list("Event", namespace="demo").items
    assert event["involvedObject"]["uid"] == about["metadata"]["uid"]
    assert (event["type"], event["reason"], event["message"]) == ("Normal", "Ready", "revision made")
    assert event["source"]["component"] == "pipeline"


def test_event_said_again_counts_over_a_restart(client: Client, pipeline: Make) -> None:
    about, clock = pipeline("a"), Clock()
    for _ in range(3):
        Recorder(client, "pipeline", clock=clock).event(about, "Warning", "Failed", "no")
        clock.now += timedelta(minutes=1)
    (event,) = client.list("Event", namespace="demo").items
    assert event["count"] == 3
    assert (event["firstTimestamp"], event["lastTimestamp"]) == ("2026-01-31T12:00:00Z", "2026-01-31T12:02:00Z")


def test_other_words_are_another_event(client: Client, pipeline: Make) -> None:
    about, recorder = pipeline("a"), Recorder(client, "pipeline")
    recorder.event(about, "Warning", "Failed", "no")
    recorder.event(about, "Warning", "Failed", "still no")
    assert len(client.list("Event", namespace="demo").items) == 2


def test_cluster_scoped_object_is_told_of_in_default(client: Client) -> None:
    Recorder(client, "namespace").event(client.get("Namespace", "demo"), "Normal", "Emptied", "done")
    (event,) = client.list("Event", namespace="default").items
    assert "namespace" not in event["involvedObject"]


def test_event_that_cannot_be_written_is_passed_over(client: Client, pipeline: Make) -> None:
    gone = pipeline("a")
    gone["metadata"]["namespace"] = "absent"
    Recorder(client, "pipeline").event(gone, "Normal", "Ready", "yes")
    assert client.list("Event").items == []


def test_long_message_and_name_are_cut(client: Client, pipeline: Make) -> None:
    about = pipeline("a")
    about["metadata"]["name"] = "x" * 253
    Recorder(client, "pipeline").event(about, "Normal", "Ready", "m" * 5000)
    (event,) = client.list("Event", namespace="demo").items
    assert len(event["message"]) == 1024


def test_racing_recorders_make_one_event(client: Client, pipeline: Make) -> None:
    about = pipeline("a")
    recorder = Recorder(client, "pipeline")
    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(recorder.event, about, "Warning", "Failed", "no") for _ in range(4)]:
            future.result()
    (event,) = client.list("Event", namespace="demo").items
    assert 2 <= event["count"] <= 4
