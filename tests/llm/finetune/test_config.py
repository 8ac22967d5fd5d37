"""The configuration of a run: read from YAML and JSON, and every wrong field is named at once."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from michelangelo import errors
from michelangelo.llm.finetune import config

VALID: dict[str, Any] = {"model": {"path": "m"}, "data": {"train": [{"path": "d.jsonl"}]}, "output": "out"}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)


@pytest.mark.parametrize(
    "dump", [json.dumps, lambda document: f"# a comment\n{json.dumps(document)}"], ids=["json", "yaml"]
)
def test_config_is_read_from_a_file(tmp_path: Path, dump: Any) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(dump({**VALID, "training": {"max_steps": 3}}))
    read = config.load(str(path))
    assert read.training.max_steps == 3
    assert read.adapter.method == "lora"


def test_config_names_every_wrong_field() -> None:
    document = {
        "model": {},
        "data": {"train": [], "sequence_length": 0},
        "output": "out",
        "optimizer": {"learning_rate": -1, "momentun": 0.9},
        "training": {"precision": "bf17"},
    }
    with pytest.raises(errors.SettingsError) as caught:
        config.parse(document, source="run.yaml")
    for field in ("model.path", "data.train", "data.sequence_length", "optimizer.learning_rate", "optimizer.momentun"):
        assert f"  {field}: " in caught.value.message
    assert "training.precision" in caught.value.message
    assert caught.value.message.startswith("run.yaml: wrong fields:")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"parallel": {"num_workers": 3, "tensor_parallel": 2}}, "parallel.tensor_parallel"),
        ({"parallel": {"offload": "parameters"}}, "parallel.offload"),
        ({"parallel": {"min_workers": 4}}, "parallel.min_workers"),
        ({"adapter": {"method": "qlora"}, "training": {"precision": "fp32"}}, "training.precision"),
        ({"adapter": {"method": "qlora"}, "parallel": {"num_workers": 2, "sharding": "fsdp2"}}, "parallel.sharding"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_combinations_that_cannot_be_are_refused(change: dict[str, Any], field: str) -> None:
    with pytest.raises(errors.SettingsError, match=field.replace(".", r"\.")):
        config.parse({**VALID, **change})


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"model: [", "no YAML"), (b"\xff\xfe\x00", "no YAML"), (b"[1]", "mapping"), (b"#" * 1_000_001, "larger than")],
    ids=["syntax", "binary", "list", "large"],
)
def test_file_that_is_no_config_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(content)
    with pytest.raises(errors.SettingsError, match=said):
        config.load(str(path))


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(errors.SettingsError, match=r"nosuch\.yaml: cannot be read"):
        config.load(str(tmp_path / "nosuch.yaml"))


@given(document=st.dictionaries(st.sampled_from([*VALID, "training", "other"]), JSON, max_size=5))
def test_any_document_is_a_config_or_a_settings_error(document: dict[str, Any]) -> None:
    with contextlib.suppress(errors.SettingsError):
        config.parse(document)
