"""Rates, remaining time and shares of the hardware, with a clock in hand."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch

from michelangelo.llm.finetune import randomness
from michelangelo.llm.finetune.meter import Meter


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_meter_gives_rates_and_remaining_time() -> None:
    clock = Clock()
    meter = Meter(torch.device("cpu"), flops_per_token=2e9, peak_flops=1e12, clock=clock)
    for seconds in (10.0, 2.0, 2.0, 4.0):
        meter.begin()
        clock.now += seconds
        assert meter.end(200) == (seconds, 200 / seconds)
    assert meter.median_rate() == 100.0
    assert meter.mfu(100.0) == pytest.approx(0.2)
    assert meter.eta_seconds(10) == 40.0
    assert meter.peak_memory_bytes > 1_000_000


def test_what_is_not_known_is_no_number() -> None:
    meter = Meter(torch.device("cpu"))
    assert math.isnan(meter.mfu(100.0))
    assert math.isnan(meter.eta_seconds(3))
    assert math.isnan(meter.median_rate())


def test_chance_continues_where_it_was_kept() -> None:
    randomness.seed(7, rank=3)
    kept = randomness.state()
    expected = (random.random(), float(np.random.rand()), float(torch.rand(())))
    randomness.seed(1)
    randomness.restore(kept)
    assert (random.random(), float(np.random.rand()), float(torch.rand(()))) == expected


def test_processes_have_chances_of_their_own() -> None:
    drawn = []
    for rank in range(3):
        randomness.seed(7, rank)
        drawn.append(float(torch.rand(())))
    assert len(set(drawn)) == 3
