"""OpenAI's API over any engine, on loopback: what the HTTP engine is tested against, and a switch for each misfortune.

The engine is used by one thread only, as its interface wants. `misbehave` is asked before each call is served, with
its path, its body and how many came before; what it gives is sent instead of an answer.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import queue
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeAlias

from michelangelo.llm.scorer.engine import Completion, Engine, Request, Sampling

__all__ = ["Misfortune", "Server", "serving"]

_PIECE = re.compile(r"\s*\S+")


@dataclass(frozen=True, slots=True)
class Misfortune:
    """An answer that is none. cut_after: the connection ends after so many bytes of the body (-1: before the status).

    hold: nothing is sent until this is set.
    """

    status: int = 200
    body: bytes = b"{}"
    headers: Mapping[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    hold: threading.Event | None = None


Misbehave: TypeAlias = Callable[[str, Mapping[str, Any], int], Misfortune | None]


@dataclass(slots=True)
class Server:
    """Where it is, and what it was sent: (path, headers in lower case, body) of each call."""

    base_url: str
    calls: list[tuple[str, Mapping[str, str], Any]]
    most_at_once: int = 0


@contextlib.contextmanager
def serving(engine: Engine, misbehave: Misbehave | None = None) -> Iterator[Server]:
    """The engine is closed at the end."""
    work: queue.Queue[tuple[Request, Future[Completion]] | None] = queue.Queue()
    pump = threading.Thread(target=_pump, args=(engine, work), name="engine-pump")
    pump.start()
    server = Server("", [])
    lock = threading.Lock()
    num_open = 0

    def ask(request: Request) -> Completion:
        answer: Future[Completion] = Future()
        work.put((request, answer))
        return answer.result(60)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            nonlocal num_open
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with lock:
                number = len(server.calls)
                server.calls.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                num_open += 1
                server.most_at_once = max(server.most_at_once, num_open)
            try:
                # A client that gave up is part of what is tested.
                with contextlib.suppress(ConnectionError):
                    self._serve(body, number)
            finally:
                with lock:
                    num_open -= 1

        def _serve(self, body: dict[str, Any], number: int) -> None:
            misfortune = misbehave(self.path, body, number) if misbehave else None
            if misfortune is None:
                status, document = _answer(self.path, body, f"r{number}", ask)
                if body.get("stream") and status == 200:
                    self._send(status, _events(document), {"content-type": "text/event-stream"})
                else:
                    self._send(status, json.dumps(document).encode(), {})
                return
            if misfortune.hold is not None:
                misfortune.hold.wait(30)
            self._send(misfortune.status, misfortune.body, misfortune.headers, misfortune.cut_after)

        def _send(self, status: int, body: bytes, headers: Mapping[str, str], cut_after: int | None = None) -> None:
            if cut_after is None or cut_after >= 0:
                self.send_response(status)
                for name, value in {"content-type": "application/json", **headers}.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[:cut_after])
            if cut_after is not None:
                self.close_connection = True

        def log_message(self, *_: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.base_url = f"http://127.0.0.1:{http.server_address[1]}/v1"
    listener = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, name="openai-server")
    listener.start()
    try:
        yield server
    finally:
        http.shutdown()
        listener.join()
        http.server_close()
        work.put(None)
        pump.join()
        engine.close()


def _pump(engine: Engine, work: queue.Queue[tuple[Request, Future[Completion]] | None]) -> None:
    waiting: dict[str, Future[Completion]] = {}
    while True:
        while not waiting or not work.empty():
            item = work.get()
            if item is None:
                return
            request, future = item
            engine.submit(request)
            waiting[request.id] = future
        for completion in engine.poll(0.01):
            waiting.pop(completion.id).set_result(completion)


def _answer(path: str, body: dict[str, Any], number: str, ask: Callable[[Request], Completion]) -> tuple[int, Any]:
    match path:
        case "/v1/completions":
            return _complete(body, number, ask)
        case "/v1/chat/completions":
            return _chat(body, number, ask)
        case "/v1/embeddings":
            given = body["input"]
            found = ask(dataclasses.replace(_given(number, given), task="embed"))
            if found.error:
                return _refusal(found.error)
            data = [{"object": "embedding", "index": 0, "embedding": list(found.embedding or ())}]
            return 200, {"data": data, "usage": {"prompt_tokens": found.prompt_tokens}}
        case _:
            return 404, {"error": {"message": f"no path {path}"}}


def _complete(body: dict[str, Any], number: str, ask: Callable[[Request], Completion]) -> tuple[int, Any]:
    if body.get("echo"):
        choices = [_echo(prompt, index, f"{number}-{index}", ask) for index, prompt in enumerate(body["prompt"])]
        return 200, {"choices": choices, "usage": {"prompt_tokens": 1, "completion_tokens": len(choices)}}
    given = body["prompt"]
    found = ask(dataclasses.replace(_given(number, given), sampling=_sampling(body, body.get("logprobs"))))
    if found.error:
        return _refusal(found.error)
    choice: dict[str, Any] = {"index": 0, "text": found.text, "finish_reason": found.finish_reason}
    if found.logprobs is not None:
        choice["logprobs"] = {
            "tokens": [item.token for item in found.logprobs],
            "token_logprobs": [item.logprob for item in found.logprobs],
            "top_logprobs": [{item.token: item.logprob, **dict(item.top)} for item in found.logprobs],
        }
    return 200, {"model": "test", "choices": [choice], "usage": _usage(found)}


def _given(number: str, given: Any) -> Request:
    """Text, or the numbers of tokens."""
    return Request(number, prompt=given) if isinstance(given, str) else Request(number, token_ids=tuple(given))


def _chat(body: dict[str, Any], number: str, ask: Callable[[Request], Completion]) -> tuple[int, Any]:
    tools = tuple(body.get("tools", ()))
    sampling = _sampling(body, body.get("top_logprobs") if body.get("logprobs") else None)
    found = ask(Request(number, messages=tuple(body["messages"]), sampling=sampling, tools=tools))
    if found.error:
        return _refusal(found.error)
    message: dict[str, Any] = {"role": "assistant", "content": found.text}
    reason: str = found.finish_reason
    if found.tool_calls:
        message |= {"tool_calls": list(found.tool_calls), "content": None}
        reason = "tool_calls"
    choice: dict[str, Any] = {"index": 0, "message": message, "finish_reason": reason}
    if found.logprobs is not None:
        choice["logprobs"] = {
            "content": [
                {
                    "token": item.token,
                    "logprob": item.logprob,
                    "top_logprobs": [
                        {"token": token, "logprob": value} for token, value in ((item.token, item.logprob), *item.top)
                    ],
                }
                for item in found.logprobs
            ]
        }
    return 200, {"model": "test", "choices": [choice], "usage": _usage(found)}


def _echo(text: str, index: int, number: str, ask: Callable[[Request], Completion]) -> dict[str, Any]:
    """Word by word: the probability of each after those before it."""
    found = list(_PIECE.finditer(text))
    values: list[float | None] = []
    for place, piece in enumerate(found):
        request = Request(f"{number}-{place}", text[: piece.start()], task="choices", choices=(piece.group(),))
        sums = ask(request).choice_logprobs if place else None
        values.append(sums[0] if sums else None)
    logprobs = {
        "tokens": [*[piece.group() for piece in found], " beyond"],
        "token_logprobs": [*values, -1.0],
        "text_offset": [*[piece.start() for piece in found], len(text)],
    }
    return {"index": index, "text": f"{text} beyond", "logprobs": logprobs, "finish_reason": "length"}


def _sampling(body: Mapping[str, Any], logprobs: int | None) -> Sampling:
    wanted = body.get("response_format") or {}
    return Sampling(
        max_tokens=body.get("max_tokens", body.get("max_completion_tokens", 16)),
        temperature=body.get("temperature", 1.0),
        top_p=body.get("top_p", 1.0),
        top_k=body.get("top_k", 0),
        seed=body.get("seed"),
        stop=tuple(body.get("stop", ())),
        logprobs=None if logprobs is None else max(0, logprobs - 1),
        json_schema=wanted.get("json_schema", {}).get("schema"),
        ignores_eos=body.get("ignore_eos", False),
    )


def _usage(found: Completion) -> dict[str, Any]:
    return {
        "prompt_tokens": found.prompt_tokens,
        "completion_tokens": found.output_tokens,
        "prompt_tokens_details": {"cached_tokens": found.cached_tokens},
    }


def _refusal(error: str) -> tuple[int, Any]:
    return 400, {"error": {"message": error, "type": "invalid_request_error"}}


def _events(document: dict[str, Any]) -> bytes:
    """The answer in pieces of three characters, as a server streams it."""
    choice = document["choices"][0]
    is_chat = "message" in choice
    text = (choice["message"].get("content") if is_chat else choice["text"]) or ""
    pieces: list[dict[str, Any]] = []
    for start in range(0, len(text), 3):
        piece = text[start : start + 3]
        pieces.append({"index": 0, **({"delta": {"content": piece}} if is_chat else {"text": piece})})
    if is_chat:
        for number, call in enumerate(choice["message"].get("tool_calls") or ()):
            function = call["function"]
            half = len(function["arguments"]) // 2
            opening = {**call, "index": number, "function": {**function, "arguments": function["arguments"][:half]}}
            rest = {"index": number, "function": {"arguments": function["arguments"][half:]}}
            pieces += [{"index": 0, "delta": {"tool_calls": [part]}} for part in (opening, rest)]
    end: dict[str, Any] = {"index": 0, "finish_reason": choice["finish_reason"], "logprobs": choice.get("logprobs")}
    end["delta" if is_chat else "text"] = {} if is_chat else ""
    documents = [{"model": "test", "choices": [piece]} for piece in [*pieces, end]]
    documents.append({"choices": [], "usage": document["usage"]})
    frames = [f"data: {json.dumps(piece)}\r\n\r\n" for piece in documents]
    return "".join([": comment\n\n", *frames, "data: [DONE]\n\n"]).encode()
