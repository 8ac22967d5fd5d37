"""What GPUs there are: a bundled table of datasheet figures, by name.

It holds values only; how much of a peak is reached is in `kernels`. Bytes per second are 10^9-based, per direction.
"""

from __future__ import annotations

import difflib
import functools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from michelangelo import errors

__all__ = ["Family", "Hardware", "catalogue", "load", "of_device", "parse", "provenance"]

Family: TypeAlias = Literal["volta", "turing", "ampere", "ada", "hopper", "blackwell", "cdna3", "cpu"]
_FILE: Final = Path(__file__).parents[1] / "data" / "hardware.json"
_GIB: Final = 2**30
_GIGA: Final = 1e9
_MAX_GPUS: Final = 100_000
_NOISE: Final = re.compile(r"\b(nvidia|amd|geforce|instinct|tesla|graphics|hbm2e?|hbm3e?)\b")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """One GPU, and the node it is usually in. Memory in bytes, rates in FLOP/s and bytes/s, power in watts."""

    name: str
    title: str
    family: Family
    peaks: Mapping[str, float]
    """Dense FLOP/s by precision: bf16, fp16, fp8, fp32; a missing one is not supported in hardware."""
    memory_bytes: int
    """What CUDA reports as total: a little less than the name says."""
    bandwidth: float
    """Of the device's memory."""
    link_bandwidth: float
    """To the other GPUs of the node (NVLink, Infinity Fabric, or PCIe), each way."""
    host_link_bandwidth: float
    """To the host's memory, each way, as reached."""
    host_bandwidth: float
    """Of the node's memory."""
    network_bandwidth: float
    """Of the node, each way."""
    tdp_watts: float
    idle_watts: float
    gpus_per_node: int
    host_memory_bytes: int
    """Of the node."""
    multiprocessors: int
    source: str
    """The datasheet's address."""
    note: str = ""

    def peak(self, precision: str) -> float:
        """FLOP/s of matrix products in `precision` (bf16, fp16, fp8, fp32); of fp32 where it is not supported."""
        return self.peaks.get(precision) or self.peaks["fp32"]

    def training_peak(self, precision: str) -> float:
        """The same for a precision of a training setup: `bf16` and `bf16_mixed` multiply in bf16."""
        return self.peak("fp32" if precision == "fp32" else "bf16")


def load(name: str) -> Hardware:
    """By its name or an alias, in any case and with any separators. Raises SettingsError that tells similar names."""
    wanted = _canonical(name)
    entries = _read()
    if wanted in entries:
        return entries[wanted]
    near = difflib.get_close_matches(wanted, list(entries), n=4, cutoff=0.4)
    hint = f"; did you mean {', '.join(dict.fromkeys(entries[key].name for key in near))}?" if near else ""
    raise errors.SettingsError(f"hardware {name}: there is no such entry{hint} (known: {', '.join(catalogue())})")


def parse(text: str) -> tuple[Hardware, int]:
    """`h100:8`, or `h100` for one. Raises SettingsError."""
    name, colon, count = text.partition(":")
    if not colon:
        return load(name), 1
    if not count.isdecimal() or not 1 <= int(count) <= _MAX_GPUS:
        raise errors.SettingsError(f"hardware {text}: write it as NAME or NAME:COUNT, with 1 to {_MAX_GPUS:,} GPUs")
    return load(name), int(count)


def of_device(device_name: str, memory_bytes: int = 0) -> Hardware | None:
    """The entry for what a driver calls a device (`NVIDIA H200`, `NVIDIA A100-SXM4-80GB`), or None where it is not
    known. `memory_bytes` tells variants of one name apart."""
    parts = _canonical(_NOISE.sub(" ", device_name.lower())).split("-")
    entries = _read()
    if "pcie" in parts:
        parts = [parts[0], "pcie", *(part for part in parts[1:] if part != "pcie")]
    for end in range(len(parts), 0, -1):
        found = entries.get("-".join(parts[:end]))
        if found is not None:
            return _by_memory(found, memory_bytes) if memory_bytes else found
    return None


def catalogue() -> tuple[str, ...]:
    """Names, without the aliases, as the table orders them: data-centre parts first."""
    return tuple(dict.fromkeys(entry.name for entry in _read().values()))


def provenance() -> tuple[str, str]:
    """What the table says of itself, and the date it was read (YYYY-MM-DD)."""
    document = json.loads(_FILE.read_text(encoding="utf-8"))
    return document["about"], document["read"]


def _by_memory(found: Hardware, memory_bytes: int) -> Hardware:
    """Of the same chip, the variant whose memory is nearest (a device may have some of it taken by its driver)."""
    chip = found.name.split("-")[0]
    same = [e for e in _read().values() if e.name.split("-")[0] == chip and e.link_bandwidth == found.link_bandwidth]
    return min(same, key=lambda entry: (abs(entry.memory_bytes - memory_bytes), entry.name != found.name))


def _canonical(name: str) -> str:
    return "-".join(re.findall(r"[a-z0-9.]+", name.lower()))


@functools.lru_cache(maxsize=1)
def _read() -> dict[str, Hardware]:
    made: dict[str, Hardware] = {}
    aliases: dict[str, Hardware] = {}
    for name, entry in json.loads(_FILE.read_text(encoding="utf-8"))["hardware"].items():
        made[name] = _hardware(name, entry)
        aliases.update(dict.fromkeys(entry["aliases"], made[name]))
    return {**made, **aliases}


def _hardware(name: str, entry: Mapping[str, Any]) -> Hardware:
    return Hardware(
        name=name,
        title=entry["title"],
        family=entry["family"],
        peaks=_Peaks({key: value * 1e12 for key, value in entry["tflops"].items()}),
        memory_bytes=int(entry["usable_gib"] * _GIB),
        bandwidth=entry["bandwidth_gbs"] * _GIGA,
        link_bandwidth=entry["link_gbs"] * _GIGA,
        host_link_bandwidth=entry["host_link_gbs"] * _GIGA,
        host_bandwidth=entry["host_bandwidth_gbs"] * _GIGA,
        network_bandwidth=entry["network_gbs"] * _GIGA,
        tdp_watts=entry["tdp_watts"],
        idle_watts=entry["idle_watts"],
        gpus_per_node=entry["gpus_per_node"],
        host_memory_bytes=int(entry["host_memory_gib"] * _GIB),
        multiprocessors=entry["multiprocessors"],
        source=entry["source"],
        note=entry.get("note", ""),
    )


class _Peaks(dict[str, float]):
    """A dict that can be hashed, so that hardware can be a key; it is never changed."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(tuple(sorted(self.items())))
