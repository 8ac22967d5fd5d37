"""Which fields can be searched, and what is said of those that cannot."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from michelangelo import errors
from michelangelo.llm.finetune.config import FinetuneConfig
from michelangelo.llm.finetune.hpo import space
from michelangelo.llm.finetune.hpo.space import Choice, LogUniform, Space


@pytest.fixture
def config() -> FinetuneConfig:
    return FinetuneConfig.model_validate(
        {"model": {"path": "tiny"}, "data": {"train": [{"path": "rows.jsonl"}]}, "output": "out"}
    )


@given(st.floats(1e-12, 1e3), st.floats(1.001, 1e6))
def test_ranges_are_read_as_they_are_written(low: float, factor: float) -> None:
    high = low * factor
    assert space.parse_range(f"{low}:{high}") == LogUniform(low, high)


@pytest.mark.parametrize("text", ["", "1e-5", "1e-3:1e-5", "0:1", "-1:1", "a:b", "1:1", "1:inf", "nan:1", "1:2:3"])
def test_what_is_no_range_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no range LOW:HIGH"):
        space.parse_range(text)


@pytest.mark.parametrize("values", [[], [4, 4]])
def test_choices_are_different_values(values: list[int]) -> None:
    with pytest.raises(ValueError, match="different values"):
        space.parse_choice(values)


def test_values_go_where_their_paths_lead_and_nothing_else_changes(config: FinetuneConfig) -> None:
    changed = space.configured(config, {"optimizer.learning_rate": 3e-4, "adapter.rank": 64, "objective": "pretrain"})
    assert (changed.optimizer.learning_rate, changed.adapter.rank, changed.objective) == (3e-4, 64, "pretrain")
    assert (
        space.configured(changed, {"optimizer.learning_rate": 2e-4, "adapter.rank": 16, "objective": "sft"}) == config
    )


def test_the_default_space_is_valid(config: FinetuneConfig) -> None:
    space.check(config, space.DEFAULT)


def test_all_wrong_values_are_named_before_anything_runs(config: FinetuneConfig) -> None:
    searched: Space = {
        "adapter.rank": Choice((4, 0)),
        "adapter.method": Choice(("lora", "magic")),
        "optimizer.rate": LogUniform(1e-5, 1e-3),
        "output.deep": Choice((1,)),
    }
    with pytest.raises(errors.SettingsError) as refused:
        space.check(config, searched)
    for part in (
        "adapter.rank=0",
        "adapter.method=magic",
        "optimizer.rate=1e-05",
        "output.deep=1: output.deep: there is no",
    ):
        assert part in refused.value.message
    assert "adapter.rank=4" not in refused.value.message


def test_an_empty_space_is_refused(config: FinetuneConfig) -> None:
    with pytest.raises(errors.SettingsError, match="nothing to search"):
        space.check(config, {})
