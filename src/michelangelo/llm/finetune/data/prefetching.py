"""Batches made in a thread, a few ahead of the model, so that it never waits for text to be read and tokenised.

The position is that of what was handed out, not of what was made. Errors of the thread are raised where the batch is
asked for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

from michelangelo.llm.finetune.batch import Batch, PreferenceBatch
from michelangelo.llm.finetune.data.batching import Produced
from michelangelo.llm.finetune.data.report import DataReport

__all__ = ["DEPTH", "PrefetchedBatches"]

DEPTH: Final = 4
"""Batches that lie ready, or are being made."""


class PrefetchedBatches:
    """A stream of batches with a position. After `restore(state())` the same rows follow, in batches of whatever number
    of processes there is then; `restore({"epoch": n})` begins pass n."""

    def __init__(
        self,
        make: Callable[[Mapping[str, Any]], Iterator[Produced]],
        check: Callable[[Mapping[str, Any]], None],
        count: Callable[[], int] | None,
        report: DataReport,
    ) -> None:
        self._make = make
        self._check = check
        self._count = count
        self._counted: int | None = None
        self._state: Mapping[str, Any] = {"epoch": 0}
        self._ahead: _Ahead | None = None
        self.report = report

    def next(self) -> Batch | PreferenceBatch | None:
        """The next batch of this process; None at the end of the pass. Raises DatasetError, ModelError."""
        if self._ahead is None:
            self._ahead = _Ahead(self._make(self._state))
        produced = self._ahead.next()
        if produced is None:
            return None
        self._state = produced.state
        self.report.set(produced.report)
        return produced.batch

    def next_epoch(self) -> None:
        """Begin the next pass, in another order."""
        self.restore({"epoch": int(self._state["epoch"]) + 1})

    def state(self) -> Mapping[str, Any]:
        """Where the stream is, as JSON; the same on every process. `epoch` is the pass, `is_done` that it is over."""
        return self._state

    def restore(self, state: Mapping[str, Any]) -> None:
        """Raises CheckpointError if the position is of other data or settings."""
        self._check(state)
        self.close()
        self._state = dict(state)
        self.report.set(DataReport(epoch=int(state["epoch"])).counts())
        self.report.set(state.get("counts", {}))
        tokens, trained_tokens, positions = state.get("made", (0, 0, 0))
        self.report.set({"tokens": tokens, "trained_tokens": trained_tokens, "positions": positions})

    def num_batches(self) -> int | None:
        """Batches of this process in a pass; None for data that is streamed. Found by reading and packing the first
        pass (of more than 20,000 rows so many of them, then it is an estimate); as rows pack otherwise in another
        order, a later pass may have a few more or less. Raises DatasetError, ModelError."""
        if self._counted is None and self._count is not None:
            self._counted = self._count()
        return self._counted

    def close(self) -> None:
        """Ends the thread; `next` would start another one."""
        if self._ahead is not None:
            self._ahead.close()
            self._ahead = None


class _Ahead:
    """One thread, and the batches that it was asked for in advance."""

    def __init__(self, made: Iterator[Produced]) -> None:
        self._made = made
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="data")
        self._asked: deque[Future[Produced | None]] = deque(self._ask() for _ in range(DEPTH))

    def next(self) -> Produced | None:
        produced = self._asked[0].result()
        if produced is not None:
            # The last answer stays: after the end comes the end again.
            self._asked.popleft()
            self._asked.append(self._ask())
        return produced

    def close(self) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _ask(self) -> Future[Produced | None]:
        return self._thread.submit(next, self._made, None)
