"""Events reach every sink in order; a sink that fails is left out, and the others are told."""

from __future__ import annotations

from michelangelo.llm.finetune import recording
from michelangelo.llm.finetune.recording import Alert, Event, Recorder, Saved, SinkError


class Memory:
    """Keeps events; fails from the n-th on."""

    def __init__(self, name: str, fails_at: int = -1, *, fails_to_close: bool = False) -> None:
        self.name = name
        self.events: list[Event] = []
        self._fails_at = fails_at
        self._fails_to_close = fails_to_close

    def receive(self, event: Event) -> None:
        if len(self.events) == self._fails_at:
            raise SinkError("the disk is full")
        self.events.append(event)

    def close(self) -> None:
        if self._fails_to_close:
            raise SinkError("no answer")


def test_every_sink_gets_every_event_in_order() -> None:
    sinks = [Memory("one"), Memory("two")]
    recorder = Recorder(sinks)
    events: list[Event] = [Saved(step, "path", 1, 0.1) for step in range(3)]
    for event in events:
        recorder.record(event)
    assert [sink.events for sink in sinks] == [events, events]


def test_a_failing_sink_is_left_out_and_the_others_are_told_once() -> None:
    whole, broken = Memory("whole"), Memory("broken", fails_at=1)
    recorder = Recorder([broken, whole])
    for step in range(3):
        recorder.record(Saved(step, "path", 1, 0.1))
    assert [type(event).__name__ for event in whole.events] == ["Saved", "Saved", "Alert", "Saved"]
    (alert,) = recorder.alerts
    assert (alert.kind, alert.step) == ("SinkLost", 1)
    assert "broken takes no more events" in alert.message
    assert "the disk is full" in alert.message
    assert len(broken.events) == 1


def test_all_sinks_failing_ends_nothing() -> None:
    recorder = Recorder([Memory("one", 0), Memory("two", 0)])
    recorder.record(Alert(1, "Kind", "text"))
    recorder.record(Alert(2, "Kind", "text"))
    assert [alert.kind for alert in recorder.alerts] == ["Kind", "SinkLost", "SinkLost", "Kind"]


def test_a_sink_that_cannot_be_closed_is_told_to_the_others() -> None:
    whole = Memory("whole")
    recorder = Recorder([whole, Memory("broken", fails_to_close=True)])
    recorder.close()
    assert [event.message for event in whole.events if isinstance(event, Alert)] == [
        "broken could not be ended: no answer"
    ]


def test_events_are_json() -> None:
    assert recording.to_dict(Saved(3, "path", 10, 0.5)) == {
        "event": "Saved",
        "step": 3,
        "path": "path",
        "num_bytes": 10,
        "seconds": 0.5,
    }
