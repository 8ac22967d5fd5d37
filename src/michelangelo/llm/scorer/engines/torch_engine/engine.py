"""The engine itself: requests are prepared, scheduled, run in steps of many sequences, and handed back as they end.

It ties the parts together and decides nothing that one of them decides. One caller, one thread; `poll` runs the steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

import torch

from michelangelo import errors
from michelangelo.llm.scorer.engine import Completion, FinishReason, Request, Task, Timing, TokenLogprob
from michelangelo.llm.scorer.engines.torch_engine import (
    constraints,
    flights,
    forward,
    generation,
    loading,
    prefix,
    preparing,
    sampler,
    scheduler,
)
from michelangelo.llm.scorer.engines.torch_engine.config import TorchEngineConfig, check

__all__ = ["TorchEngine", "open_engine"]

_AHEAD: Final = 2
"""Requests worth having in flight, over those worked on: so that one is there when one ends."""


def open_engine(config: TorchEngineConfig, *, clock: Callable[[], float] = time.monotonic) -> TorchEngine:
    """Loads the model. Raises EngineError (settings, memory, device) or ModelError (no model that can be served)."""
    check(config)
    loaded = loading.load(config)
    try:
        return TorchEngine(config, loaded, forward.Forward(loaded, config), clock)
    except errors.LlmError:
        loading.release(loaded)
        raise


class TorchEngine:
    """An `Engine`. Embeddings have unit length; `config.pooling` says of what. See `open_engine`."""

    def __init__(
        self,
        config: TorchEngineConfig,
        loaded: loading.Loaded,
        runner: forward.Forward,
        clock: Callable[[], float],
    ) -> None:
        self._config: Final = config
        self._clock: Final = clock
        self._loaded: Final = loaded
        self._forward: Final = runner
        self._tree: Final = prefix.BlockTree(
            runner.num_blocks, runner.block_tokens, is_sharing=config.reuses_prefixes, first_block=1
        )
        self.scheduler: Final = scheduler.Scheduler(
            self._tree, scheduler.Limits(config.max_batch_tokens, config.max_sequences)
        )
        grammars = constraints.Grammars(loaded.tokenizer, loaded.vocab_size, sorted(loaded.end_tokens))
        self._preparer: Final = preparing.Preparer(
            loaded.tokenizer,
            loaded.tasks,
            runner.context,
            loaded.vocab_size,
            grammars if config.enforces_schema else None,
        )
        self._flights: dict[str, flights.Flight] = {}
        self._done: list[Completion] = []
        self._num_requests = 0
        self._problem: errors.EngineError | None = None
        self.num_steps = 0

    @property
    def name(self) -> str:
        return f"torch:{self._config.model.rstrip('/').rsplit('/', 1)[-1]}"

    @property
    def tasks(self) -> frozenset[Task]:
        return self._loaded.tasks

    @property
    def capacity(self) -> int:
        return _AHEAD * self._config.max_sequences

    @property
    def context(self) -> int:
        """Tokens of a prompt and its output."""
        return self._forward.context

    @property
    def room(self) -> int:
        """Tokens that the cache holds, of all sequences at once."""
        return self._forward.num_blocks * self._forward.block_tokens

    @property
    def attends_by(self) -> str:
        return self._forward.attends_by

    @property
    def is_decoding(self) -> bool:
        """All requests in flight are worked on, and every prompt has been read."""
        running = self.scheduler.running
        return not self.scheduler.waiting and all(len(each.tokens) - each.num_computed == 1 for each in running)

    def submit(self, request: Request) -> None:
        """Raises ValueError if a request of this id is in flight, EngineError after a step failed or it was closed."""
        self._check_alive()
        if request.id in self._flights:
            raise ValueError(f"a request {request.id!r} is in flight already")
        number, now = self._num_requests, self._clock()
        self._num_requests += 1
        try:
            prepared = self._preparer.prepare(request)
        except preparing.BadRequest as e:
            self._done.append(
                Completion(request.id, finish_reason="error", error=str(e), timing=Timing(now, None, self._clock()))
            )
            return
        work = self._work(request, prepared, number)
        self._flights[request.id] = flights.Flight(request, prepared.prompt, work, flights.Times(now))
        for sequence in work.sequences:
            self.scheduler.add(sequence)

    def poll(self, timeout: float | None = None) -> Sequence[Completion]:
        """At least one step is run, if there is anything to do. Raises EngineError if the device fails."""
        self._check_alive()
        until = None if timeout is None else self._clock() + timeout
        while not self._done and self._flights:
            try:
                self._step()
            except errors.EngineError as e:
                self._problem = e
                raise
            if until is not None and self._clock() >= until:
                break
        done, self._done = self._done, []
        return done

    def cancel(self, request_id: str) -> None:
        flight = self._flights.get(request_id)
        if flight is not None:
            self._finish(flight, "cancelled")

    def forget_prefixes(self) -> None:
        """Prompts that come again are computed again; for measurements."""
        self._tree.forget()

    def close(self) -> None:
        self._flights.clear()
        self._done.clear()
        self._problem = errors.EngineError(f"engine {self.name} is closed; open another one")
        self._forward.close()

    def _check_alive(self) -> None:
        if self._problem is not None:
            raise self._problem

    def _work(self, request: Request, prepared: preparing.Prepared, number: int) -> flights.Work:
        prompt, sampling = prepared.prompt, request.sampling
        if request.task == "choices":
            return flights.Choices(request.id, prepared)
        if request.task == "embed":
            first = 0 if self._config.pooling == "mean" else None
            return flights.Embedding(scheduler.Sequence(request.id, list(prompt), first), self._config.pooling)
        if request.task == "reward":
            return flights.Reward(scheduler.Sequence(request.id, list(prompt)))
        output = generation.Generation(
            sampling,
            generation.Stopping(self._loaded.end_tokens, self._forward.context - len(prompt)),
            decode=self._decode if self._loaded.tokenizer is not None else None,
            # Integers of Python: no two numbers of requests give the same seed, whatever the engine's.
            seed=sampling.seed if sampling.seed is not None else (self._config.seed << 64) + number,
            constraint=prepared.constraint,
        )
        return flights.Generate(scheduler.Sequence(request.id, list(prompt)), output)

    def _step(self) -> None:
        chunks = self.scheduler.next()
        if not chunks:
            raise errors.EngineError(
                f"engine {self.name} has {len(self._flights)} requests in flight and no room for any: open it anew"
            )
        rows: list[int] = []
        outputs: list[tuple[flights.Flight, flights.Generate]] = []
        scored: list[tuple[flights.Flight, flights.Choices, scheduler.Sequence, int, list[int]]] = []
        hidden: list[tuple[flights.Flight, scheduler.Chunk, int]] = []
        choice_rows: list[int] = []
        place = 0
        for chunk in chunks:
            flight = self._flights[chunk.sequence.id]
            work = flight.work
            if isinstance(work, flights.Generate):
                if chunk.is_last:
                    rows.append(place + chunk.stop - chunk.start - 1)
                    outputs.append((flight, work))
            elif isinstance(work, flights.Choices):
                first, targets = work.targets(chunk.sequence, chunk.start, chunk.stop)
                if targets:
                    choice_rows.extend(range(place + first - chunk.start, place + first - chunk.start + len(targets)))
                    scored.append((flight, work, chunk.sequence, first, targets))
            else:
                hidden.append((flight, chunk, place))
            place += chunk.stop - chunk.start
        made = self._forward.run(chunks, rows + choice_rows, wants_hidden=bool(hidden))
        self.num_steps += 1
        if made.logits is not None:
            if outputs:
                self._take_tokens(made.logits[: len(rows)], outputs)
            if scored:
                self._take_scores(made.logits[len(rows) :], scored)
        if made.hidden is not None:
            for flight, chunk, start in hidden:
                self._take_hidden(flight, chunk, made.hidden[start : start + chunk.stop - chunk.start])

    @torch.inference_mode()
    def _take_tokens(self, logits: torch.Tensor, outputs: list[tuple[flights.Flight, flights.Generate]]) -> None:
        constrained = [
            (row, work.output.constraint) for row, (_, work) in enumerate(outputs) if work.output.constraint is not None
        ]
        allowed = constraints.hide(logits, constrained) if constrained else logits
        draws = [draw for row, (_, work) in enumerate(outputs) if (draw := work.output.draw(row)) is not None]
        tokens = sampler.choose(allowed, draws)
        self._take_logprobs(logits, tokens, outputs)
        now = self._clock()
        ended = []
        for token, (flight, work) in zip(tokens, outputs, strict=True):
            if flight.times.first_token is None:
                flight.times.first_token = now
            if work.output.take(token):
                ended.append(flight)
            else:
                work.sequence.tokens.append(token)
        self._end(ended)

    def _take_logprobs(
        self, logits: torch.Tensor, tokens: Sequence[int], outputs: list[tuple[flights.Flight, flights.Generate]]
    ) -> None:
        asked = [row for row, (_, work) in enumerate(outputs) if work.output.logprobs is not None]
        if not asked:
            return
        most = max(outputs[row][1].output.sampling.logprobs or 0 for row in asked)
        found = sampler.alternatives(
            logits[torch.tensor(asked, device=logits.device)], [tokens[row] for row in asked], most
        )
        for row, (logprob, others, values) in zip(asked, found, strict=True):
            output = outputs[row][1].output
            count = output.sampling.logprobs or 0
            top = tuple((self._word(other), value) for other, value in zip(others[:count], values[:count], strict=True))
            assert output.logprobs is not None
            output.logprobs.append(TokenLogprob(self._word(tokens[row]), logprob, top))

    @torch.inference_mode()
    def _take_scores(
        self,
        logits: torch.Tensor,
        scored: list[tuple[flights.Flight, flights.Choices, scheduler.Sequence, int, list[int]]],
    ) -> None:
        targets = [target for *_, each in scored for target in each]
        logprobs = [value for value, *_ in sampler.alternatives(logits, targets, 0)]
        place = 0
        computed: list[scheduler.Sequence] = []
        ended = []
        for flight, work, sequence, first, each in scored:
            if work.take(sequence, first, logprobs[place : place + len(each)]):
                ended.append(flight)
            elif first + len(each) == len(sequence.tokens):
                computed.append(sequence)
            place += len(each)
        self.scheduler.remove(computed)
        self._end(ended)

    def _take_hidden(self, flight: flights.Flight, chunk: scheduler.Chunk, hidden: torch.Tensor) -> None:
        work = flight.work
        if isinstance(work, flights.Embedding):
            work.take(chunk.start, hidden)
        elif isinstance(work, flights.Reward) and chunk.is_last:
            work.score = float(self._forward.score(hidden[-1:])[0])
        if chunk.is_last:
            self._end([flight])

    def _end(self, ended: Sequence[flights.Flight]) -> None:
        for flight in ended:
            work = flight.work
            reason = work.output.finish_reason if isinstance(work, flights.Generate) else None
            self._finish(flight, reason or "stop", removes=False)
        self.scheduler.remove([sequence for flight in ended for sequence in flight.work.sequences])

    def _finish(self, flight: flights.Flight, reason: FinishReason, *, removes: bool = True) -> None:
        del self._flights[flight.request.id]
        self._done.append(flight.completion(self._clock(), reason))
        if removes:
            self.scheduler.remove(flight.work.sequences)

    def _decode(self, tokens: Sequence[int]) -> str:
        tokenizer = self._loaded.tokenizer
        assert tokenizer is not None
        return str(tokenizer.decode(list(tokens), skip_special_tokens=True))

    def _word(self, token: int) -> str:
        tokenizer = self._loaded.tokenizer
        return str(token) if tokenizer is None else str(tokenizer.decode([token]))
