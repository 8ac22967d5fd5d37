"""The peak of tensors on a CPU, against sizes that are known."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from michelangelo.llm.bench.cpu_memory import PeakOfTensors

pytestmark = pytest.mark.usefixtures("_one_thread")
KIB = 1024


def test_peak_of_tensors_is_the_most_that_lived_at_once() -> None:
    with PeakOfTensors() as counted:
        first = torch.zeros(KIB)  # 4 KiB
        second = torch.zeros(2 * KIB)
        assert counted.bytes == 12 * KIB
        del second
        assert counted.bytes == 4 * KIB
        third = torch.ones(KIB)
        assert first.numel() == third.numel()
    assert counted.peak_bytes == 12 * KIB


def test_views_and_changes_in_place_hold_nothing_more() -> None:
    with PeakOfTensors() as counted:
        whole = torch.zeros(8, KIB)
        parts = whole.view(4, 2, KIB).transpose(0, 1)
        whole.add_(1.0)
        assert parts.shape == (2, 4, KIB)
    assert counted.peak_bytes == 32 * KIB


def test_a_storage_lives_as_long_as_a_view_of_it() -> None:
    with PeakOfTensors() as counted:
        whole = torch.zeros(8, KIB)
        row = whole[3]
        del whole
        assert counted.bytes == 32 * KIB
        del row
        assert counted.bytes == 0


def test_what_autograd_keeps_and_the_gradients_count() -> None:
    with PeakOfTensors() as counted:
        layer = nn.Linear(KIB, 1, bias=False)
        rows = torch.ones(16, KIB)
        resting = counted.bytes
        kept = (layer(rows) ** 2).sum()
        assert counted.bytes >= resting + 16 * 4
        kept.backward()
        del kept
    assert resting == 4 * KIB + 64 * KIB
    assert counted.bytes == resting + 4 * KIB, "the gradient of the weights stays"


def test_the_peak_can_start_anew() -> None:
    with PeakOfTensors() as counted:
        held = torch.zeros(KIB)
        large = torch.zeros(64 * KIB)
        del large
        counted.reset()
        assert counted.peak_bytes == held.nbytes
        more = torch.zeros(KIB)
        assert counted.peak_bytes == held.nbytes + more.nbytes
