"""The same work on one's own or rented GPUs, by the planner's prediction, to stand beside the price of an API.

It assumes a replica that is kept full; idle hours are not in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from michelangelo import errors
from michelangelo.llm import model_shape
from michelangelo.llm.planner import hardware, inference, prices
from michelangelo.llm.tokens.estimate import Estimate, Interval

__all__ = ["SelfHosted", "predict"]


@dataclass(frozen=True, slots=True)
class SelfHosted:
    """What the work of an estimate costs on the hardware. tokens_per_second: output, of a replica."""

    model: str
    hardware: str
    usd: Interval
    hours: float
    tokens_per_second: float
    provenance: str

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "model": self.model,
            "hardware": self.hardware,
            "usd": self.usd.to_dict(),
            "hours": self.hours,
            "outputTokensPerSecond": self.tokens_per_second,
            "price": self.provenance,
        }


def predict(made: Estimate, calls: int, model: str, kind: str, *, per_gpu_hour: float | None = None) -> SelfHosted:
    """kind: `h100` or `h100:2` (GPUs of a replica). Raises PricingError where it does not fit or has no price."""
    shape = model_shape.load(model)
    machine, gpus = hardware.parse(kind)
    setup = inference.InferenceSetup(
        input_tokens=max(1, round(made.input_tokens.middle / max(1, calls))),
        output_tokens=max(1, round(made.output_tokens.middle / max(1, calls))),
        tensor_parallel=gpus or 1,
    )
    table = prices.bundled() if per_gpu_hour is None else prices.flat(per_gpu_hour)
    planned = inference.make(shape, setup, machine, table)
    if not planned.fits or planned.best is None:
        raise errors.PricingError(f"{model} does not fit {kind} with calls of this length: give more GPUs")
    if planned.price is None:
        raise errors.PricingError(f"{kind}: no price of an hour is known; give one")
    # From low outputs at the fast end of the planner's interval to high outputs at the slow end.
    rate = planned.best.output_tokens_per_second
    each = planned.money_per_million_output / 1e6
    money = Interval(
        made.output_tokens.low * each * rate / planned.high,
        made.output_tokens.middle * each,
        made.output_tokens.high * each * rate / planned.low,
        made.usd.level,
    )
    price = planned.price
    where = f"{price.provider or 'given'} {price.per_gpu_hour:g} {price.currency} per GPU-hour, {price.date or 'given'}"
    return SelfHosted(model, kind, money, made.output_tokens.middle / rate / 3600, rate, where)
