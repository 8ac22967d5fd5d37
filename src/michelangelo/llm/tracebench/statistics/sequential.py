"""A test that may be looked at for ever: wealth of bets against "nothing got worse".

Each observation is a drop in [-1, 1]. Under the null hypothesis its mean is at most `allowance`, so a gambler who bets
on more cannot expect to gain, and wealth reaches 1 / level with probability at most `level`, ever (Ville). Several bet
sizes play side by side. Part of the stake is kept back for later looks, so that good months do not use up what a bad
day needs: look k starts new bets with 1 / (k (k + 1)) of the money.
Sources: Ville (1939); Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting" (2024);
Shin, Ramdas and Rinaldo, "E-detectors" (2023), on restarting.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["BETS", "Wealth", "look", "start"]

BETS: Final = tuple(0.9 * 2.0 ** (-step / 2) for step in range(12))
"""Shares of the largest bet that is allowed: from almost all to a fiftieth."""


@dataclass(frozen=True, slots=True)
class Wealth:
    """Where a test stands. running: money in play per bet size. num_looks: looks so far. highest: total so far."""

    running: tuple[float, ...]
    num_looks: int
    highest: float

    @property
    def total(self) -> float:
        """All money: in play, and kept back for later looks. 1 at the start."""
        return math.fsum(self.running) / len(self.running) + 1 / (self.num_looks + 1)


def start() -> Wealth:
    """Before the first look."""
    return Wealth((0.0,) * len(BETS), 0, 1.0)


def look(wealth: Wealth, drops: Sequence[float], allowance: float) -> Wealth:
    """After one more sample of drops, each in [-1, 1]. allowance: the mean drop that is no alarm, in [0, 1).

    An alarm is due once `highest` is at least 1 / level. Raises ValueError for a drop that is no number in range.
    """
    if any(not -1 <= drop <= 1 for drop in drops):
        raise ValueError("drops must be from -1 to 1")
    number = wealth.num_looks + 1
    stake = 1 / (number * (number + 1))
    running = []
    for share, money in zip(BETS, wealth.running, strict=True):
        bet = share / (1 + allowance)
        grown = money + stake
        for drop in drops:
            # Beyond 1e200 the alarm is long due; infinity could not be written to a file.
            grown = min(grown * (1 + bet * (drop - allowance)), 1e200)
        running.append(grown)
    made = Wealth(tuple(running), number, wealth.highest)
    return Wealth(made.running, made.num_looks, max(wealth.highest, made.total))
