"""Changes to a configuration from the command line: types, lists, and all errors at once."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from michelangelo import errors
from michelangelo.llm.finetune import overrides

DOCUMENT = {
    "model": {"path": "tiny"},
    "data": {"train": [{"path": "a.jsonl"}, {"path": "b.jsonl"}]},
    "output": "out",
    "training": None,
}
VALUES = st.one_of(st.integers(), st.booleans(), st.text(max_size=10), st.lists(st.integers(), max_size=3))


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(DOCUMENT))
    return str(path)


def test_changes_are_typed_by_yaml_and_make_sections_that_are_not_there(file: str) -> None:
    config = overrides.load(
        file,
        [
            "training.max_steps=10",
            "optimizer.learning_rate=1e-5",
            "adapter.targets=[q_proj, v_proj]",
            "data.train.1.path=c=d.jsonl",
            "data.packing=false",
            "training.max_steps=12",
        ],
    )
    assert config.training.max_steps == 12
    assert config.optimizer.learning_rate == 1e-5
    assert config.adapter.targets == ("q_proj", "v_proj")
    assert [source.path for source in config.data.train] == ["a.jsonl", "c=d.jsonl"]
    assert config.data.packing is False


def test_a_file_that_lacks_a_field_can_get_it_from_a_change(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        yaml.safe_dump({key: value for key, value in DOCUMENT.items() if key not in ("output", "training")})
    )
    assert overrides.load(str(path), ["output=elsewhere"]).output == "elsewhere"


def test_everything_wrong_is_said_at_once(file: str) -> None:
    with pytest.raises(errors.SettingsError) as refused:
        overrides.load(
            file,
            [
                "training.max_steps=many",
                "training",
                "model.path.deep=1",
                "data.train.7.path=x",
                "adapter.rank=[",
                "a..b=1",
                "optimizer.rate=1",
            ],
        )
    for part in (
        "training.max_steps: Input should be a valid integer",
        "training: is no change PATH=VALUE",
        "model.path.deep: model.path is a value and has no fields",
        "data.train.7.path: 7 is no item of a list of 2",
        "adapter.rank: the value '[' is no YAML",
        "a..b=1: is no change PATH=VALUE",
        "optimizer.rate: Extra inputs are not permitted",
    ):
        assert part in refused.value.message, part


@given(st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=4), VALUES)
def test_a_change_is_found_at_its_path_and_the_document_stays_as_it_was(path: list[str], value: object) -> None:
    document = {"a": {"b": {"c": {}}}, "kept": 1}
    changed, wrong = overrides.apply(document, [f"{'.'.join(path)}={yaml.safe_dump(value, default_flow_style=True)}"])
    assert wrong == []
    found: object = changed
    for name in path:
        assert isinstance(found, dict)
        found = found[name]
    assert found == value
    assert changed["kept"] == 1
    assert document == {"a": {"b": {"c": {}}}, "kept": 1}


@given(st.text(max_size=40))
def test_any_text_is_a_change_or_a_sentence(text: str) -> None:
    changed, wrong = overrides.apply(DOCUMENT, [text])
    assert bool(wrong) != (changed != DOCUMENT) or changed == DOCUMENT
    assert all(isinstance(line, str) for line in wrong)


@pytest.mark.parametrize(
    ("content", "said"), [(b"- a\n", "must be a mapping"), (b"a: [", "is no YAML"), (b"\xff\xfe\x00", "is no YAML")]
)
def test_a_file_that_is_no_configuration_is_said(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    with pytest.raises(errors.SettingsError, match=said):
        overrides.load(str(path))


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(errors.SettingsError, match="cannot be read: No such file"):
        overrides.load(str(tmp_path / "none.yaml"))
