"""The progress: what is shown, that it is bounded where nobody watches, and live on a terminal."""

from __future__ import annotations

import io
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.llm.finetune import run_events

from michelangelo.llm.finetune.recording import Alert, SinkError
from michelangelo.llm.finetune.sinks import terminal


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


class Broken(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")


def shown(stream: io.StringIO, *, no_color: bool = False) -> str:
    sink = terminal.make(stream, no_color=no_color)
    for event in run_events.whole_run():
        sink.receive(event)
    sink.close()
    return stream.getvalue()


def test_lines_say_steps_loss_rate_speed_memory_and_what_happened() -> None:
    lines = shown(io.StringIO()).splitlines()
    assert lines[0] == "training 1.50K of 31.00K parameters (4.84%), 6 steps, 1.00 GiB planned"
    assert lines[1] == "step 1/6  loss 5.0000  lr 1.00e-04  512 tokens/s  0.00 GiB  ETA 0:02"
    assert "warning: LossSpike: the loss 9.0 of step 3 is far above the median" in lines
    assert "evaluation at step 4: loss 2.5000  accuracy 0.75  (the best)" in lines
    assert "checkpoint of step 4: runs/one/checkpoints/4 (0.0 MiB in 0.2 s)" in lines
    assert lines[-1] == "Succeeded at step 6"
    assert "MFU" not in "".join(lines)


def test_plain_lines_are_bounded_and_what_is_left_out_is_counted() -> None:
    stream = io.StringIO()
    sink = terminal.make(stream, no_color=True)
    sink.receive(run_events.started(total_steps=5000))
    for step in range(1, 5001):
        sink.receive(run_events.stepped(step))
        sink.receive(Alert(step, "Test", "again"))
    sink.receive(run_events.ended(5000))
    lines = stream.getvalue().splitlines()
    assert len(lines) <= 210
    assert any(line.startswith("step 5000/5000") for line in lines)
    assert "4900 more lines were left out" in lines


def test_a_terminal_shows_a_line_that_changes() -> None:
    text = shown(Terminal())
    assert "\x1b[" in text
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    assert "step 6/6" in plain
    assert "evaluation at step 4" in plain


def test_no_color_means_none() -> None:
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", shown(Terminal(), no_color=True))


def test_a_stream_that_is_gone_is_a_sink_error() -> None:
    with pytest.raises(SinkError, match="cannot be printed"):
        terminal.make(Broken(), no_color=True).receive(run_events.started())


@given(st.lists(st.floats(0.0, 100.0), min_size=1, max_size=50))
def test_the_smoothed_loss_is_within_the_losses(losses: list[float]) -> None:
    smoothed = terminal.SmoothedLoss()
    for count in range(1, len(losses) + 1):
        average = smoothed.add(losses[count - 1])
        assert min(losses[:count]) - 1e-9 <= average <= max(losses[:count]) + 1e-9


def test_a_loss_that_is_no_number_leaves_the_smoothed_loss_alone() -> None:
    smoothed = terminal.SmoothedLoss()
    assert math.isnan(smoothed.add(math.nan))
    assert smoothed.add(2.0) == pytest.approx(2.0)
    assert smoothed.add(math.inf) == pytest.approx(2.0)
