"""What `mactl llm plan` is told, as values of the planner: options to a setup, hardware, prices, a space to search.

It prints nothing. All that is wrong is told with the option's name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click

from michelangelo import errors
from michelangelo.app import settings
from michelangelo.llm.planner import calibration, hardware, kernels, prices
from michelangelo.llm.planner.cost import PowerRates
from michelangelo.llm.planner.hardware import Hardware
from michelangelo.llm.planner.inference import InferenceSetup
from michelangelo.llm.planner.plan import Assumptions
from michelangelo.llm.planner.prices import PriceTable
from michelangelo.llm.planner.search import Space
from michelangelo.llm.training_setup import TrainingSetup

__all__ = ["NUMBER", "assumptions_of", "inference_of", "machines_of", "setup_of", "space_of"]

_SUFFIXES: Final = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12}
_MAX_NUMBER: Final = 1e18
_SHARED: Final = (
    "objective",
    "sequence_length",
    "gradient_accumulation",
    "tensor_parallel",
    "precision",
    "lora_rank",
    "padding_share",
)
"""Options that are fields of a setup, and no axes of a search."""
_AXES: Final = {
    "method": "methods",
    "sharding": "shardings",
    "offload": "offloads",
    "checkpointing": "checkpointings",
    "micro_batch": "micro_batches",
    "attention": "attentions",
    "cross_entropy": "cross_entropies",
    "optimizer": "optimizers",
    "compiled": "compiled",
}
"""Fields of a setup that a search tries all values of, unless one is given."""
_BOUNDS: Final = {
    "epochs": (1e-6, 1e6),
    "electricity_price": (0.0, 1e3),
    "pue": (1.0, 10.0),
    "padding_share": (0.0, 0.999),
}
_DEFAULT_HARDWARE: Final = ("h100",)
_SEARCHED_GPUS: Final = (1, 2, 4, 8)


class _Number(click.ParamType[float]):
    """`100M`, `1.5B`, `2e9`."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        found = re.fullmatch(
            r"(\d+(?:\.\d*)?(?:e\d+)?|\.\d+)\s*([kmbgt]?)", str(value).strip().lower().replace(",", "")
        )
        if found is None:
            self.fail(f"{value!r} is no number such as 100M, 1.5B or 2e9", param, ctx)
        number = float(found[1]) * _SUFFIXES[found[2]]
        if not math.isfinite(number) or not 1 <= number <= _MAX_NUMBER:
            self.fail(f"{value!r}: must be from 1 to 1e18", param, ctx)
        return number


NUMBER: Final = _Number()


def machines_of(options: Mapping[str, Any]) -> list[tuple[Hardware, int]]:
    """Each kind with its number of GPUs; 0: not given. Raises SettingsError."""
    found: list[tuple[Hardware, int]] = []
    for text in options["hardware"] or _DEFAULT_HARDWARE:
        kind, count = hardware.parse(text)
        if ":" not in text:
            count = options["gpus"] or 0
        elif options["gpus"] and options["gpus"] != count:
            raise errors.SettingsError(f"--gpus {options['gpus']}: --hardware {text} says {count}; give one of the two")
        found.append((kind, count))
    return found


def setup_of(options: Mapping[str, Any], kind: Hardware, gpus: int) -> TrainingSetup:
    """One setup; what is not given is as the trainer has it. Several GPUs are sharded (FSDP2),
    but for weights in 4 bits, which are not."""
    values = _shared(options) | {name: options[name] for name in _AXES if options[name] is not None}
    values.setdefault("compiled", True)
    if gpus > 1:
        values.setdefault("sharding", "none" if values.get("method") == "qlora" else "fsdp2")
    return TrainingSetup(num_gpus=gpus, gpus_per_node=kind.gpus_per_node, **values)


def space_of(options: Mapping[str, Any], gpus: tuple[int, ...]) -> Space:
    """All values of what is not given."""
    axes = {field: (options[name],) for name, field in _AXES.items() if options[name] is not None}
    base = TrainingSetup(**_shared(options))
    step = options["tokens_per_step"] or 0
    return Space(base=base, gpus=gpus or _SEARCHED_GPUS, tokens_per_step=int(step), **axes)


def assumptions_of(options: Mapping[str, Any]) -> Assumptions:
    """Prices, power, and what earlier runs have taught (`llm/calibration.json` of the home). Raises SettingsError."""
    _check_finite(options)
    power = PowerRates()
    file = settings.load().home / "llm" / calibration.FILE_NAME
    return Assumptions(
        tokens=options["tokens"] * options["epochs"],
        prices=_prices(options),
        provider=options["provider"],
        power=PowerRates(
            electricity=power.electricity if options["electricity_price"] is None else options["electricity_price"],
            pue=power.pue if options["pue"] is None else options["pue"],
        ),
        calibration=calibration.load(Path(file)),
        stack=kernels.stack_named(options["stack"]) if options["stack"] else None,
    )


def inference_of(options: Mapping[str, Any], gpus: int) -> InferenceSetup:
    """One replica on `gpus` GPUs."""
    return InferenceSetup(
        input_tokens=options["input_tokens"],
        output_tokens=options["output_tokens"],
        tensor_parallel=gpus,
        precision=options["weights"],
        kv_precision=options["cache"],
        max_batch=options["max_batch"],
    )


def _check_finite(options: Mapping[str, Any]) -> None:
    """Click's ranges let `nan` through."""
    for name, (low, high) in _BOUNDS.items():
        value = options[name]
        if value is not None and not low <= value <= high:
            option = name.replace("_", "-")
            raise errors.SettingsError(f"--{option} {value}: must be from {low:g} to {high:g}")


def _shared(options: Mapping[str, Any]) -> dict[str, Any]:
    values = {name: options[name] for name in _SHARED if options[name] is not None}
    if options["lora_targets"]:
        values["lora_targets"] = tuple(options["lora_targets"])
    if values.get("padding_share"):
        values["packing"] = False
    return values


def _prices(options: Mapping[str, Any]) -> PriceTable:
    if options["price"] is not None and options["prices"]:
        raise errors.SettingsError("--price and --prices: give one of the two")
    if options["price"] is not None:
        return prices.flat(options["price"])
    table = prices.read(options["prices"]) if options["prices"] else prices.bundled()
    if options["provider"] and options["provider"].lower() not in {name.lower() for name in table.providers}:
        known = ", ".join(table.providers)
        raise errors.SettingsError(f"--provider {options['provider']}: no price of it is known; there are {known}")
    return table
