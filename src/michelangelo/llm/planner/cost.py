"""What a run costs: hours, GPU hours, energy, money, each with the interval that the speed has.

Rent is the list price of the GPUs for the time that training takes; loading, compiling, evaluation, checkpoints and
machines that break are not in it. Energy is what the cards take at their load, the rest of their servers, and the
building (PUE); rented GPUs have it in their price, so it is never added to the rent.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

from michelangelo.llm.planner.hardware import Hardware
from michelangelo.llm.planner.prices import Price, PriceTable
from michelangelo.llm.planner.throughput import Throughput
from michelangelo.llm.training_setup import TrainingSetup

__all__ = ["Cost", "Interval", "PowerRates", "estimate", "offer_for", "watts_per_gpu"]

_COMPUTE: Final = ("matmul", "output_matrix", "attention")
_LOAD: Final = 0.95
"""Of the range between idle and TDP, while tensor cores work (NVIDIA's boards run at their limit in training)."""
_LOAD_MEMORY: Final = 0.65
"""The same while memory is the bottleneck."""
_SERVER: Final = 1.35
"""A server's power over that of its GPUs: CPUs, memory, network cards, fans. A DGX H100 draws at most 10.2 kW for eight
cards of 0.7 kW, 1.8 times; under load about 1.35 (MLPerf Power; Samsi et al. 2023, arXiv 2310.03003)."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A value between two bounds that hold it with the probability of the speed's interval."""

    value: float
    low: float
    high: float

    def scaled(self, factor: float) -> Interval:
        return Interval(self.value * factor, self.low * factor, self.high * factor)


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerRates:
    """What a kilowatt-hour costs, and how many the building needs for one that reaches the servers."""

    electricity: float = 0.083
    """USD per kWh: average of industrial customers in the USA, 2024 (EIA, Electric Power Monthly, table 5.3)."""
    pue: float = 1.56
    """Average of the sites asked (Uptime Institute, Global Data Center Survey 2024); hyperscalers report 1.1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Of all tokens."""

    tokens: float
    """Of the dataset, times epochs."""
    steps: int
    hours: Interval
    gpu_hours: Interval
    """Of the GPUs that are paid: a provider that rents eight at once is paid for eight."""
    money: Interval | None
    """Rent; None where no price is known."""
    price: Price | None
    price_low: float
    price_high: float
    """Per GPU hour, of all providers that are known; 0 where there are none."""
    energy_kwh: Interval
    """At the meter of the building."""
    electricity: Interval
    watts_per_gpu: float
    """Of the card alone."""
    currency: str
    power: PowerRates

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def estimate(
    speed: Throughput,
    setup: TrainingSetup,
    hardware: Hardware,
    *,
    tokens: float,
    prices: PriceTable,
    provider: str = "",
    power: PowerRates = PowerRates(),
) -> Cost:
    """`tokens`: those that are to be learned from, padding not counted."""
    factor = speed.tokens_per_second_per_gpu
    positions = tokens / (1.0 - (0.0 if setup.packing else setup.padding_share))
    seconds = positions / speed.tokens_per_second
    hours = Interval(seconds, seconds * factor / speed.high, seconds * factor / speed.low).scaled(1 / 3600)
    price, paid = offer_for(prices, hardware.name, setup.num_gpus, provider=provider)
    gpu_hours = hours.scaled(paid)
    spread = prices.spread(hardware.name, provider=provider)
    watts = watts_per_gpu(speed, hardware)
    energy = hours.scaled(setup.num_gpus * watts * _SERVER * power.pue / 1000)
    return Cost(
        tokens=tokens,
        steps=max(1, -int(-positions // speed.tokens_per_step)),
        hours=hours,
        gpu_hours=gpu_hours,
        money=gpu_hours.scaled(price.per_gpu_hour) if price else None,
        price=price,
        price_low=spread[0] if spread else 0.0,
        price_high=spread[1] if spread else 0.0,
        energy_kwh=energy,
        electricity=energy.scaled(power.electricity),
        watts_per_gpu=watts,
        currency=prices.currency,
        power=power,
    )


def offer_for(prices: PriceTable, hardware: str, num_gpus: int, *, provider: str = "") -> tuple[Price | None, int]:
    """The typical offer for that many GPUs, and how many are paid: the lower median of what each provider's cheapest
    way to get them costs per hour."""
    cheapest: dict[str, tuple[float, Price, int]] = {}
    for price in prices.of(hardware, provider=provider):
        paid = -(-num_gpus // price.min_gpus) * price.min_gpus
        total = paid * price.per_gpu_hour
        if price.provider not in cheapest or total < cheapest[price.provider][0]:
            cheapest[price.provider] = (total, price, paid)
    if not cheapest:
        return None, num_gpus
    ordered = sorted(cheapest.values(), key=lambda offer: offer[0])
    _, price, paid = ordered[(len(ordered) - 1) // 2]
    return price, paid


def watts_per_gpu(speed: Throughput, hardware: Hardware) -> float:
    """Mean power of a card in a step: near its limit in matrix products, less where memory or a link is waited for."""
    busy = sum(speed.phase(name) for name in _COMPUTE) / speed.seconds_per_step
    load = _LOAD * busy + _LOAD_MEMORY * (1 - busy)
    return hardware.idle_watts + load * (hardware.tdp_watts - hardware.idle_watts)
