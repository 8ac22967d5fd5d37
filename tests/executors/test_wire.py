"""Frames and channels: whatever the pieces in which bytes arrive, the same messages come out."""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from michelangelo.executors import wire
from michelangelo.executors.base import Attempt, AttemptState, CallTarget, Outcome

messages = st.lists(st.dictionaries(st.text(), st.one_of(st.integers(), st.text(), st.none()), max_size=5), max_size=8)


@given(messages, st.lists(st.integers(0, 200), max_size=20))
def test_frames_survive_any_cut(sent: list[wire.Message], cuts: list[int]) -> None:
    stream = b"".join(wire.frame(message, number) for number, message in enumerate(sent))
    places = sorted({0, *(cut for cut in cuts if cut < len(stream)), len(stream)})
    frames = wire.Frames()
    received = []
    for start, end in itertools.pairwise(places):
        received += frames.feed(stream[start:end])
    assert received == [(message, number) for number, message in enumerate(sent)]


def test_frame_that_is_no_object_is_refused() -> None:
    data = wire.frame({})
    with pytest.raises(ValueError):
        wire.Frames().feed(data[:-2] + b"[]")


@pytest.fixture
def channels() -> Iterator[tuple[wire.Channel, wire.Channel]]:
    one, other = (wire.Channel(end) for end in socket.socketpair())
    yield one, other
    one.close()
    other.close()


def receive_all(channel: wire.Channel, sender: wire.Channel, count: int) -> list[tuple[wire.Message, tuple[int, ...]]]:
    received: list[tuple[wire.Message, tuple[int, ...]]] = []
    while len(received) < count:
        sender.flush()
        received += channel.receive()
    return received


def test_channel_carries_more_than_it_can_hold(channels: tuple[wire.Channel, wire.Channel]) -> None:
    one, other = channels
    for number in range(50):
        one.send({"number": number, "text": "x" * 100_000})
    assert one.has_outgoing
    received = receive_all(other, one, 50)
    assert [message["number"] for message, _ in received] == list(range(50))
    assert not one.has_outgoing


def test_channel_carries_descriptors_with_their_message(channels: tuple[wire.Channel, wire.Channel]) -> None:
    one, other = channels
    before = len(os.listdir("/dev/fd"))
    ends = []
    for number in range(20):
        read_end, write_end = os.pipe()
        ends.append(read_end)
        one.send({"number": number, "text": "x" * 10_000 * (number % 3)}, (write_end,) if number % 2 else ())
        if not number % 2:
            os.write(write_end, b"%d" % number)
            os.close(write_end)
    for message, fds in receive_all(other, one, 20):
        assert len(fds) == message["number"] % 2
        for fd in fds:
            assert not os.get_inheritable(fd)
            os.write(fd, b"%d" % message["number"])
            os.close(fd)
    assert [int(os.read(end, 10)) for end in ends] == list(range(20))
    for end in ends:
        os.close(end)
    assert len(os.listdir("/dev/fd")) == before


def test_channel_notices_that_the_other_side_is_gone(channels: tuple[wire.Channel, wire.Channel]) -> None:
    one, other = channels
    one.send({"last": "words"})
    one.close()
    assert [message for message, _ in other.receive()] == [{"last": "words"}]
    other.receive()
    assert other.closed
    read_end, write_end = os.pipe()
    other.send({}, (write_end,))
    assert os.read(read_end, 1) == b"", "descriptors that cannot be sent are closed"
    os.close(read_end)


def test_attempt_and_outcome_survive_the_wire() -> None:
    attempt = Attempt(
        id="a",
        target=CallTarget("/f.py", "f", "g"),
        arguments={"args": [1], "kwargs": {"x": None}},
        environment={"A": "b"},
        context={"attempt": 2},
    )
    assert wire.attempt_from_json(wire.attempt_to_json(attempt)) == attempt
    outcome = Outcome(id="a", state=AttemptState.FAILED, error={"type": "ValueError"})
    assert wire.outcome_from_json(wire.outcome_to_json(outcome)) == outcome
