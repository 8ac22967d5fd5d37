"""A bounded load of one kind of request over keep-alive TLS connections, cheap enough not to be the bottleneck.

`python http_load.py PORT TOKEN CA SECONDS CLIENTS VERB` prints one JSON row: requests/s, p50 and p99 in ms, and answers
other than 2xx. Requests are pre-built bytes on raw sockets, one thread a client; the server side gets the other core.
"""

from __future__ import annotations

import json
import socket
import ssl
import sys
import threading
import time
import uuid
from collections import Counter

OBJECTS = "/apis/michelangelo.api/v2/namespaces/bench/cachedoutputs"


def document(name: str) -> dict[str, object]:
    """A CachedOutput: a kind that no controller reacts to, so that only the API is measured."""
    return {
        "apiVersion": "michelangelo.api/v2",
        "kind": "CachedOutput",
        "metadata": {"name": name, "namespace": "bench", "labels": {"michelangelo/uniflow-task-path": "bench.noop"}},
        "spec": {"type": "Variable", "sourcePipelineRunStep": "noop", "output": {"value": 1}},
    }


class Connection:
    """One keep-alive HTTP/1.1 connection that understands Content-Length answers only."""

    def __init__(self, port: int, token: str, ca: str) -> None:
        context = ssl.create_default_context(cafile=ca)
        self.socket = context.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="127.0.0.1")
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.head = f"Host: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\nAccept: application/json\r\n"
        self.buffer = b""

    def request(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        content = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if body else ""
        self.socket.sendall(f"{method} {path} HTTP/1.1\r\n{self.head}{content}\r\n".encode() + body)
        while b"\r\n\r\n" not in self.buffer:
            self._fill()
        head, _, rest = self.buffer.partition(b"\r\n\r\n")
        lower = head.lower()
        at = lower.find(b"content-length:")
        if at < 0:
            raise SystemExit(f"http_load: an answer without Content-Length: {head[:200]!r}")
        length = int(lower[at + 15 :].split(b"\r\n", 1)[0])
        self.buffer = rest
        while len(self.buffer) < length:
            self._fill()
        answer, self.buffer = self.buffer[:length], self.buffer[length:]
        return int(head.split(b" ", 2)[1]), answer

    def _fill(self) -> None:
        data = self.socket.recv(1 << 18)
        if not data:
            raise ConnectionError("the server closed the connection")
        self.buffer += data


def one_request(verb: str, known: str) -> tuple[str, str, bytes]:
    if verb == "create":
        return "POST", OBJECTS, json.dumps(document(f"co-{uuid.uuid4().hex[:20]}")).encode()
    if verb == "get":
        return "GET", f"{OBJECTS}/{known}", b""
    if verb == "list20":
        return "GET", f"{OBJECTS}?limit=20", b""
    if verb == "list500":
        return "GET", f"{OBJECTS}?limit=500", b""
    raise SystemExit(f"http_load: unknown verb {verb!r}")


def client(connection: Connection, verb: str, known: str, until: float, seen: list[tuple[float, int]]) -> None:
    while time.perf_counter() < until:
        method, path, body = one_request(verb, known)
        started = time.perf_counter()
        status, _ = connection.request(method, path, body)
        seen.append((time.perf_counter() - started, status))


class Watcher(threading.Thread):
    """Counts the events of one watch. Its socket is its own: a watch ends with its connection."""

    def __init__(self, connection: Connection, resource_version: str) -> None:
        super().__init__(daemon=True)
        self.socket = connection.socket
        query = f"watch=true&resourceVersion={resource_version}"
        self.socket.sendall(f"GET {OBJECTS}?{query} HTTP/1.1\r\n{connection.head}\r\n".encode())
        self.seen = 0

    def run(self) -> None:
        rest = b""
        while data := self.socket.recv(1 << 18):
            lines = (rest + data).split(b"\n")
            rest = lines.pop()
            self.seen += sum(b'"type":"ADDED"' in line for line in lines)


def watched(port: int, token: str, ca: str, seconds: float, clients: int) -> dict[str, object]:
    """One client creates as fast as it can, `clients` watch: events that reached a watcher, per second and in all."""
    creator = Connection(port, token, ca)
    _, answer = creator.request("GET", f"{OBJECTS}?limit=1")
    version = json.loads(answer)["metadata"]["resourceVersion"]
    watchers = [Watcher(Connection(port, token, ca), version) for _ in range(clients)]
    for watcher in watchers:
        watcher.start()
    started, count = time.perf_counter(), 0
    while time.perf_counter() < started + seconds:
        status, _ = creator.request(*one_request("create", ""))
        count += status == 201
    deadline = time.perf_counter() + 5
    while any(watcher.seen < count for watcher in watchers) and time.perf_counter() < deadline:
        time.sleep(0.001)
    elapsed = time.perf_counter() - started
    missed = {str(number): count - w.seen for number, w in enumerate(watchers) if w.seen != count}
    return {"per_second": sum(w.seen for w in watchers) / elapsed, "other_answers": missed}


def main(port: int, token: str, ca: str, seconds: float, clients: int, verb: str) -> dict[str, object]:
    if verb == "watch":
        return watched(port, token, ca, seconds, clients)
    known = f"co-{uuid.uuid4().hex[:20]}"
    connections = [Connection(port, token, ca) for _ in range(clients)]
    status, answer = connections[0].request("POST", OBJECTS, json.dumps(document(known)).encode())
    if status >= 300:
        raise SystemExit(f"http_load: {status} {answer[:300]!r}")
    seen: list[list[tuple[float, int]]] = [[] for _ in connections]
    started = time.perf_counter()
    threads = [
        threading.Thread(target=client, args=(c, verb, known, started + seconds, s))
        for c, s in zip(connections, seen, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed = time.perf_counter() - started
    times = sorted(t for part in seen for t, _ in part)
    other = Counter(status for part in seen for _, status in part if status >= 300)
    return {
        "per_second": len(times) / elapsed,
        "p50_ms": times[len(times) // 2] * 1e3,
        "p99_ms": times[int(len(times) * 0.99)] * 1e3,
        "other_answers": dict(other),
    }


if __name__ == "__main__":
    _, port_, token_, ca_, seconds_, clients_, verb_ = sys.argv
    print(json.dumps(main(int(port_), token_, ca_, float(seconds_), int(clients_), verb_)))
