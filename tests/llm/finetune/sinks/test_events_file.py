"""The file of events: whole lines after any death, one history after a resume, NaN that JSON can hold."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.llm.finetune import run_events

from michelangelo import errors
from michelangelo.llm.finetune import recording
from michelangelo.llm.finetune.recording import Event, SinkError
from michelangelo.llm.finetune.sinks import events_file
from michelangelo.llm.finetune.sinks.events_file import EventsFile

WRITER = """
import sys
from pathlib import Path
from michelangelo.llm.finetune.recording import Alert
from michelangelo.llm.finetune.sinks.events_file import EventsFile
file = EventsFile(Path(sys.argv[1]))
step = 0
while True:
    step += 1
    file.receive(Alert(step, "Test", "x" * 2000))
    print(step, flush=True)
"""


def record(path: Path, events: list[Event]) -> None:
    file = EventsFile(path)
    for event in events:
        file.receive(event)
    file.close()


def test_what_was_recorded_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "events.jsonl"
    written = list(run_events.whole_run())
    record(path, written)
    expected = [json.loads(json.dumps(recording.to_dict(event))) for event in written]
    found = events_file.read(path)
    assert [event["event"] for event in found] == [event["event"] for event in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for key in one:
            assert one[key] == other[key] or (math.isnan(one[key]) and math.isnan(other[key])), key


def test_every_line_is_strict_json(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    record(path, [run_events.started(), run_events.stepped(1, math.nan), run_events.stepped(2, -math.inf)])

    def refuse(word: str) -> None:
        raise AssertionError(word)

    lines = [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]
    assert [line.get("loss") for line in lines] == [None, "NaN", "-Infinity"]
    assert math.isnan(events_file.read(path)[1]["loss"])
    assert events_file.read(path)[2]["loss"] == -math.inf


def test_a_file_that_is_not_there_has_no_events(tmp_path: Path) -> None:
    assert events_file.read(tmp_path / "none.jsonl") == []


@given(cut=st.integers(1, 400))
def test_a_torn_last_line_is_left_out_and_a_resumed_run_goes_on_behind_the_whole_ones(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    path = tmp_path_factory.mktemp("torn") / "events.jsonl"
    record(path, [run_events.started(), run_events.stepped(1), run_events.stepped(2)])
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    kept = events_file.read(path)
    assert len(kept) == whole[:-cut].count(b"\n")
    record(path, [run_events.started(1), run_events.stepped(2)])
    steps = [(event["event"], event["step"]) for event in events_file.read(path)]
    assert steps[-2:] == [("Started", 1), ("Stepped", 2)]
    assert len(steps) == len([event for event in kept if event["step"] <= 1]) + 2


def test_a_resumed_run_forgets_what_came_after_its_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    record(path, list(run_events.whole_run(last=5)))
    record(path, list(run_events.whole_run(first=5)))
    steps = [event["step"] for event in events_file.read(path) if event["event"] == "Stepped"]
    assert steps == [1, 2, 3, 4, 5, 6]
    assert [event["step"] for event in events_file.read(path) if event["event"] == "Started"] == [0, 4]
    assert [file.name for file in tmp_path.iterdir()] == ["events.jsonl"]


def test_a_new_run_in_the_same_folder_starts_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    record(path, list(run_events.whole_run()))
    record(path, [run_events.started(), run_events.stepped(1)])
    assert [event["event"] for event in events_file.read(path)] == ["Started", "Stepped"]


def test_every_acknowledged_event_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        acknowledged = 0
        while acknowledged < 50:
            acknowledged = int(writer.stdout.readline())
        os.kill(writer.pid, signal.SIGKILL)
        acknowledged = max([acknowledged, *map(int, writer.stdout.read().splitlines())])
    assert [event["step"] for event in events_file.read(path)][:acknowledged] == list(range(1, acknowledged + 1))


@pytest.mark.parametrize("line", [b"{broken", b"[1]", b'{"event": "Stepped"}', b"\xff\xfe"])
def test_a_damaged_line_in_the_middle_is_named(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "events.jsonl"
    record(path, [run_events.started(), run_events.stepped(1)])
    path.write_bytes(path.read_bytes() + line + b"\n")
    with pytest.raises(errors.LlmError, match="line 3 is"):
        events_file.read(path)


def test_a_full_disk_is_a_sink_error() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("only Linux has /dev/full")
    file = EventsFile(full)
    with pytest.raises(SinkError, match="No space left"):
        file.receive(run_events.stepped(1))
    file.close()


def test_a_folder_that_cannot_be_is_a_sink_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SinkError, match="cannot be written"):
        EventsFile(tmp_path / "file" / "events.jsonl")


def test_an_event_after_the_end_is_refused(tmp_path: Path) -> None:
    file = EventsFile(tmp_path / "events.jsonl")
    file.close()
    file.close()
    with pytest.raises(SinkError, match="was closed"):
        file.receive(run_events.stepped(1))
