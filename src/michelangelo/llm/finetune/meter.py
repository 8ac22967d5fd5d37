"""How fast a run goes, what share of the hardware it uses, what memory it holds, and when it will end.

It measures and computes; the FLOPs of a token come from `mfu`, the peak of the device from the planner's catalogue.
"""

from __future__ import annotations

import collections
import contextlib
import gc
import math
import time
from collections.abc import Callable, Iterator
from typing import Final

import psutil
import torch

__all__ = ["Meter", "without_pauses"]

_WINDOW: Final = 20
"""Steps over which the remaining time is judged: their median, so that a pause for a checkpoint does not count."""


@contextlib.contextmanager
def without_pauses() -> Iterator[None]:
    """What is there is not looked through by Python's collector again and again, which stalls a GPU."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


class Meter:
    """One per process. `flops_per_token` and `peak_flops` (of all the run's devices, FLOP/s) may be NaN: not known."""

    def __init__(
        self,
        device: torch.device,
        *,
        flops_per_token: float = math.nan,
        peak_flops: float = math.nan,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._device = device
        self._flops_per_token = flops_per_token
        self._peak_flops = peak_flops
        self._clock = clock
        self._began = clock()
        self._recent: collections.deque[float] = collections.deque(maxlen=_WINDOW)
        self._rates: list[float] = []
        self.peak_memory_bytes = 0

    def begin(self) -> None:
        """A step begins."""
        self._began = self._clock()
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)

    def end(self, num_tokens: int) -> tuple[float, float]:
        """The step took so many seconds, at so many tokens per second."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        seconds = max(self._clock() - self._began, 1e-9)
        self._recent.append(seconds)
        self._rates.append(num_tokens / seconds)
        self.peak_memory_bytes = max(self.peak_memory_bytes, self.memory_bytes())
        return seconds, num_tokens / seconds

    def mfu(self, tokens_per_second: float) -> float:
        """0 … 1, or NaN."""
        return tokens_per_second * self._flops_per_token / self._peak_flops

    def eta_seconds(self, steps_left: int) -> float:
        ordered = sorted(self._recent)
        return steps_left * ordered[len(ordered) // 2] if ordered else math.nan

    def memory_bytes(self) -> int:
        """The most that the device held since the step began; on a CPU the process's resident size."""
        if self._device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self._device))
        return int(psutil.Process().memory_info().rss)

    def median_rate(self) -> float:
        """Tokens per second of the typical step: the first one, which compiles and warms up, is no part of it."""
        rates = sorted(self._rates[1:] or self._rates)
        return rates[len(rates) // 2] if rates else math.nan
