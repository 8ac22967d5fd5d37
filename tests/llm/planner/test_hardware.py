"""The tables of hardware and prices: names, what drivers call devices, dates and addresses, files of one's own."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from michelangelo import errors
from michelangelo.llm.planner import hardware, prices

GIB = 1 << 30


NAMED = "a100-40gb a100-80gb h100 h100-pcie h100-nvl h200 b200 l4 l40s a10g rtx-4090 mi300x cpu"


@pytest.mark.parametrize("name", NAMED.split())
def test_the_table_has_what_is_asked_for(name: str) -> None:
    entry = hardware.load(name)
    assert entry.source.startswith("https://")
    assert entry.memory_bytes > 0
    assert entry.idle_watts < entry.tdp_watts
    assert entry.peak("fp32") > 1e12


@pytest.mark.parametrize("name", hardware.catalogue())
def test_every_entry_is_consistent(name: str) -> None:
    entry = hardware.load(name)
    for narrow, wide in (("fp8", "bf16"), ("bf16", "fp32")):
        if narrow in entry.peaks and wide in entry.peaks:
            assert entry.peaks[narrow] > entry.peaks[wide]
    assert entry.bandwidth > entry.host_link_bandwidth or entry.family == "cpu"
    assert hardware.load(name.upper().replace("-", "_")) is entry


@pytest.mark.parametrize(
    ("device", "gib", "name"),
    [
        ("NVIDIA H200", 140, "h200"),
        ("NVIDIA H100 80GB HBM3", 79, "h100"),
        ("NVIDIA H100 PCIe", 79, "h100-pcie"),
        ("NVIDIA H100 NVL", 93, "h100-nvl"),
        ("NVIDIA A100-SXM4-40GB", 39, "a100-40gb"),
        ("NVIDIA A100-SXM4-80GB", 79, "a100-80gb"),
        ("NVIDIA A100 80GB PCIe", 79, "a100-pcie-80gb"),
        ("NVIDIA A10G", 22, "a10g"),
        ("NVIDIA L40S", 44, "l40s"),
        ("NVIDIA GeForce RTX 4090", 23, "rtx-4090"),
        ("Tesla V100-SXM2-16GB", 15, "v100-16gb"),
        ("AMD Instinct MI300X", 191, "mi300x"),
        ("NVIDIA GeForce GTX 1080", 8, None),
        ("", 0, None),
    ],
)
def test_a_driver_s_name_finds_the_entry(device: str, gib: int, name: str | None) -> None:
    found = hardware.of_device(device, gib * GIB)
    assert (found.name if found else None) == name


def test_the_table_in_the_documentation_is_the_catalogue_s() -> None:
    page = (Path(__file__).parents[3] / "docs" / "llm" / "plan.md").read_text()
    rows = {cells[0].strip("`"): cells for cells in (_cells(line) for line in page.splitlines()) if len(cells) == 8}
    for name in hardware.catalogue():
        entry, cells = hardware.load(name), rows[name]
        assert cells[1] == entry.title
        peaks = [entry.peaks.get(precision) for precision in ("bf16", "fp8")]
        assert cells[2:4] == [f"{peak / 1e12:,.0f}" if peak else "-" for peak in peaks]
        assert cells[4:6] == [f"{entry.memory_bytes / GIB:,.1f}", f"{entry.bandwidth / 1e12:,.2f}"]
        assert cells[6:] == [f"{entry.link_bandwidth / 1e9:,.0f}", f"{entry.tdp_watts:,.0f}"]


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []


def test_an_unknown_name_tells_similar_ones() -> None:
    with pytest.raises(errors.SettingsError, match="did you mean h100"):
        hardware.load("h10")


@pytest.mark.parametrize("text", ["h100:0", "h100:x", "h100:-1", "h100:1000000", "h100:"])
def test_a_count_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(errors.SettingsError, match="NAME or NAME:COUNT"):
        hardware.parse(text)


def test_hardware_without_bf16_multiplies_at_the_rate_of_fp32() -> None:
    t4 = hardware.load("t4")
    assert t4.training_peak("bf16_mixed") == t4.peak("fp32") < t4.peak("fp16")


def test_every_price_has_a_provider_a_date_and_an_address() -> None:
    table = prices.bundled()
    assert len(table.prices) >= 40
    for price in table.prices:
        hardware.load(price.hardware)
        assert re.fullmatch(r"20\d\d-\d\d-\d\d", price.date)
        assert price.address.startswith("https://")
        assert price.per_gpu_hour > 0
        assert price.provider


def test_the_typical_price_is_between_the_cheapest_and_the_dearest() -> None:
    table = prices.bundled()
    typical, spread = table.typical("h100"), table.spread("h100")
    assert typical is not None
    assert spread is not None
    assert spread[0] <= typical.per_gpu_hour <= spread[1]
    assert table.typical("h100", provider="lambda") is not None
    assert table.typical("h100", provider="nobody") is None


def test_a_table_of_one_s_own_is_read(tmp_path: Path) -> None:
    file = tmp_path / "prices.json"
    row = {"hardware": "h100", "provider": "ours", "per_gpu_hour": 1.5, "date": "2026-01-02"}
    file.write_text(json.dumps({"currency": "EUR", "prices": [row]}))
    table = prices.read(str(file))
    assert table.currency == "EUR"
    found = table.typical("h100")
    assert found is not None
    assert found.per_gpu_hour == 1.5


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nonsense", "no JSON"),
        ("[]", '"prices"'),
        ('{"prices": [1]}', "prices[0]: is int"),
        ('{"prices": [{"hardware": "h100"}]}', "provider, per_gpu_hour, date is missing"),
        ('{"prices": [{"hardware": "h", "provider": "p", "per_gpu_hour": -1, "date": "d"}]}', "per_gpu_hour: -1"),
        ('{"prices": [{"hardware": "h", "provider": "p", "per_gpu_hour": NaN, "date": "d"}]}', "per_gpu_hour: nan"),
    ],
)
def test_a_table_that_is_wrong_says_where(text: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "prices.json"
    file.write_text(text)
    with pytest.raises(errors.SettingsError, match=re.escape(says)):
        prices.read(str(file))


def test_a_table_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(errors.SettingsError, match="cannot be read"):
        prices.read(str(tmp_path / "nosuch.json"))


@pytest.mark.parametrize("price", [-1.0, float("nan"), float("inf"), 1e9])
def test_a_price_that_is_none_is_refused(price: float) -> None:
    with pytest.raises(errors.SettingsError, match="price"):
        prices.flat(price)
