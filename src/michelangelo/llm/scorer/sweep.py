"""The same sample of rows with 1, 2, 4, … requests at once: how throughput grows, and where it stops being worth it.

Each point has an engine of its own, so that no cache of an earlier point helps; it is warmed up with one request first.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import orjson

from michelangelo import errors
from michelangelo.llm.scorer import engine_kinds, job, manifest, page, prediction, sources
from michelangelo.llm.scorer.config import ScoreConfig
from michelangelo.llm.scorer.display import Display
from michelangelo.llm.scorer.engine import Completion, Engine, Request
from michelangelo.llm.scorer.row_error import RowError
from michelangelo.llm.scorer.sketch import Sketch
from michelangelo.llm.scorer.templates import Prompter

__all__ = ["knee_of", "run"]

_KNEE: Final = 1.5
"""As the planner has it: up to the knee, twice as many requests give at least so many times the rate."""
_LINEAR: Final = 1.8
"""Up to here, twice as many give nearly twice the rate."""


def run(
    config: ScoreConfig,
    *,
    batches: str = "",
    rows: int = 64,
    display: Display | None = None,
    environment: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """`batches`: `1,2,8`; empty: powers of two up to the engine's capacity. Writes sweep.json and sweep.html into the
    job's folder. Raises SettingsError, DatasetError, EngineError."""
    shown = display or Display(is_on=False)
    config = job.check(config)
    sizes = _sizes(batches)
    requests = _sample(config, rows)
    choice = config.engine_of(config.replicas[0])
    points: list[dict[str, Any]] = []
    name = ""
    position = 0
    while position < len(sizes) or not sizes:
        engine = engine_kinds.open_engine(choice, environment)
        try:
            name = engine.name
            sizes = sizes or [size for size in _powers(engine.capacity) if size <= len(requests)]
            size = sizes[position]
            points.append(_measured(engine, requests, size))
            shown.say(f"{size} at once: {points[-1]['output_tokens_per_second']:,.0f} tokens/s")
        finally:
            engine.close()
        position += 1
    swept = _judged(config, points, name, len(requests))
    folder = config.job_folder
    folder.mkdir(parents=True, exist_ok=True)
    swept["report"] = str(folder / "sweep.html")
    manifest.write_atomically(folder / "sweep.json", [orjson.dumps(swept, option=orjson.OPT_INDENT_2) + b"\n"])
    manifest.write_atomically(Path(swept["report"]), [page.sweep_html(swept).encode()])
    return swept


def knee_of(points: Sequence[tuple[int, float]], gain: float = _KNEE) -> int:
    """Numbers at once and rates, ascending → the largest number up to which every step was worth it: `gain` per
    doubling, and as much of it as a smaller or larger step is of a doubling."""
    best = points[0][0] if points else 0
    for (before, slow), (now, fast) in itertools.pairwise(points):
        if fast < slow * (1 + (gain - 1) * (now / before - 1)):
            break
        best = now
    return best


def _sizes(text: str) -> list[int]:
    """Raises SettingsError."""
    if not text:
        return []
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdigit() and 0 < int(word) <= 65536 for word in words):
        raise errors.SettingsError(f"--sweep-batches {text}: must be numbers from 1 on, such as 1,2,4,8")
    return sorted({int(word) for word in words})


def _powers(capacity: int) -> list[int]:
    made = [1 << exponent for exponent in range(capacity.bit_length()) if 1 << exponent <= capacity]
    return made if made[-1] == capacity else [*made, capacity]


def _sample(config: ScoreConfig, rows: int) -> list[Request]:
    """The first rows that become requests. Raises DatasetError if there is none."""
    if rows < 1:
        raise errors.SettingsError("--sweep-rows: must be 1 or more")
    if config.input.format == "ray":
        raise errors.SettingsError("input.format: a sweep reads files itself; name them with another format than ray")
    prompter = Prompter(config)
    made: list[Request] = []
    for file in sources.files_of(config.input):
        for row, _ in sources.open_stream(file).read():
            if row.fields is not None:
                try:
                    made.append(replace(prompter.ask(row.fields).request, id=str(len(made))))
                except RowError:
                    continue
            if len(made) == rows:
                return made
    if not made:
        raise errors.DatasetError(f"{', '.join(config.input.path)}: no row of it can be scored")
    return made


def _measured(engine: Engine, requests: Sequence[Request], size: int) -> dict[str, Any]:
    for _ in _completions(engine, [replace(requests[0], id="warm-up")], 1):
        pass
    latency, first = Sketch(), Sketch()
    tokens, prompt_tokens, failed = 0, 0, 0
    began = time.monotonic()
    for completion in _completions(engine, requests, size):
        tokens += completion.output_tokens
        prompt_tokens += completion.prompt_tokens
        failed += completion.error is not None
        if completion.timing is not None:
            latency.add(completion.timing.finished - completion.timing.submitted)
            if completion.timing.first_token is not None:
                first.add(completion.timing.first_token - completion.timing.submitted)
    seconds = time.monotonic() - began
    return {
        "batch": size,
        "seconds": seconds,
        "output_tokens_per_second": tokens / seconds,
        "rows_per_second": len(requests) / seconds,
        "prompt_tokens": prompt_tokens,
        "output_tokens": tokens,
        "failed": failed,
        "latency_seconds": {"p50": latency.quantile(0.5), "p95": latency.quantile(0.95)},
        "first_token_seconds": {"p50": first.quantile(0.5), "p95": first.quantile(0.95)},
        "predicted": None,
    }


def _completions(engine: Engine, requests: Iterable[Request], size: int) -> Iterable[Completion]:
    """As `engine.run`, with `size` in flight instead of the engine's own number."""
    waiting = iter(requests)
    in_flight = 0
    while True:
        for request in itertools.islice(waiting, size - in_flight):
            engine.submit(request)
            in_flight += 1
        if not in_flight:
            return
        for completion in engine.poll():
            in_flight -= 1
            yield completion


def _judged(config: ScoreConfig, points: list[dict[str, Any]], name: str, rows: int) -> dict[str, Any]:
    # Rates of rows where the task makes no tokens.
    unit = "output_tokens_per_second" if any(point["output_tokens"] for point in points) else "rows_per_second"
    rates = [(point["batch"], point[unit]) for point in points]
    message = ""
    for point in points:
        made = prediction.at(config, point["batch"], point["prompt_tokens"] / rows, point["output_tokens"] / rows)
        point["predicted"] = made.get("output_tokens_per_second")
        message = made.get("message", "")
    return {
        "engine": name,
        "rows": rows,
        "unit": unit,
        "points": points,
        "knee": knee_of(rates),
        "linear_up_to": knee_of(rates, _LINEAR),
        "message": message,
    }
