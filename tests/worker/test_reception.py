"""Who may speak with the agent of a Ray: workers that know its token."""

from __future__ import annotations

import json
import queue
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from michelangelo.executors import loop
from michelangelo.worker.ray.reception import Reception

Arrivals = queue.SimpleQueue[tuple[socket.socket, dict[str, Any]]]


@pytest.fixture
def arrivals() -> Arrivals:
    return queue.SimpleQueue()


@pytest.fixture
def reception(arrivals: Arrivals) -> Iterator[Reception]:
    around = loop.Loop()
    made = Reception(around, "127.0.0.1", lambda connection, name: arrivals.put((connection, name)))
    thread = threading.Thread(target=around.run)
    thread.start()
    yield made
    around.post(around.stop)
    thread.join()
    around.close()
    made.close()


def say(reception: Reception, data: bytes) -> socket.socket:
    connection = socket.create_connection(reception.place[:2])
    connection.settimeout(20)
    connection.sendall(data)
    return connection


def test_worker_with_the_token_arrives_with_what_it_sent_after(reception: Reception, arrivals: Arrivals) -> None:
    line = json.dumps({"token": reception.place[2], "id": "a-1", "role": "log", "pid": 7}).encode() + b"\n"
    with say(reception, line[:10]) as connection:
        connection.sendall(line[10:] + b"first words")
        arrived, name = arrivals.get(timeout=20)
        assert name == {"id": "a-1", "role": "log", "pid": 7}
        arrived.setblocking(True)
        assert arrived.recv(100) == b"first words"
        arrived.close()


@pytest.mark.parametrize(
    "data",
    [b'{"token": "guessed", "id": "a-1", "role": "messages"}\n', b"GET / HTTP/1.1\r\n\r\n", b"[]\n", b"x" * 5000],
)
def test_stranger_is_turned_away(reception: Reception, arrivals: Arrivals, data: bytes) -> None:
    with say(reception, data) as connection:
        try:
            assert connection.recv(100) == b""
        except ConnectionResetError:
            pass
    assert arrivals.empty()
