"""Reading YAML: within bounds, with file and line in every error."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from michelangelo import errors
from michelangelo.cli import documents

PIPELINE = "apiVersion: michelangelo.api/v2\nkind: Pipeline\nmetadata:\n  name: train\n"


def _refusal(text: str | bytes) -> str:
    data = text if isinstance(text, bytes) else text.encode()
    with pytest.raises(errors.SettingsError) as raised:
        documents.parse(data, "file.yaml")
    return raised.value.message


def test_parse_reads_every_document_with_its_line() -> None:
    found = documents.parse(
        f"{PIPELINE}---\n{PIPELINE.replace('train', 'score')}---\n# nothing\n".encode(), "file.yaml"
    )
    assert [(one.object["metadata"]["name"], one.line) for one in found] == [("train", 1), ("score", 6)]


def test_parse_takes_a_list_apart() -> None:
    items = "".join(f"- {line}\n" if not i else f"  {line}\n" for i, line in enumerate(PIPELINE.splitlines()))
    found = documents.parse(f"apiVersion: v1\nkind: List\nitems:\n{items}".encode(), "file.yaml")
    assert [(one.object["kind"], one.line) for one in found] == [("Pipeline", 4)]


def test_parse_reads_json() -> None:
    text = b'{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}}'
    assert documents.parse(text, "file.json")[0].object["metadata"] == {"name": "a"}


def test_parse_keeps_timestamps_and_keys_as_text() -> None:
    text = f"{PIPELINE}  labels:\n    1: 2026-01-31\n"
    assert documents.parse(text.encode(), "f")[0].object["metadata"]["labels"] == {"1": "2026-01-31"}


def test_place_is_the_line_of_the_field() -> None:
    text = f"{PIPELINE}spec:\n  manifest:\n    filePath: a.py\n  items:\n  - name: x\n  - name: y\n"
    found = documents.parse(text.encode(), "file.yaml")[0]
    assert found.place("spec.manifest.filePath") == "file.yaml:7"
    assert found.place("spec.items[1].name") == "file.yaml:10"
    assert found.place("spec.manifest.missing") == "file.yaml:6"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [1, 2", "file.yaml:1"),
        (f"{PIPELINE}\tspec: 1\n", "file.yaml:5"),
        ("- 1\n- 2\n", "file.yaml:1: an object is a mapping"),
        ("kind: Pipeline\nmetadata: {name: a}\n", "apiVersion is missing"),
        ("apiVersion: v1\nmetadata: {name: a}\n", "kind is missing"),
        ("apiVersion: v1\nkind: Namespace\n", "metadata.name is missing"),
        (f"{PIPELINE}kind: Project\n", "'kind' is given twice"),
        (f"{PIPELINE}spec: .nan\n", "no JSON number"),
        (f"{PIPELINE}spec: !!python/object/apply:os.system [id]\n", "file.yaml:5"),
        (f"{PIPELINE}spec: *nowhere\n", "file.yaml:5: the alias *nowhere"),
        (f"{PIPELINE}spec: &a [*a]\n", "the alias *a refers to no value before it"),
    ],
)
def test_parse_names_file_line_and_problem(text: str, expected: str) -> None:
    assert expected in _refusal(text)


def test_parse_refuses_binary() -> None:
    assert "is no UTF-8 text" in _refusal(b"\xff\xfe\x00")


def test_parse_refuses_billion_laughs() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    assert f"more than {documents.MAX_NODES} values" in _refusal("\n".join(lines))


def test_parse_refuses_deep_nesting() -> None:
    assert "nested deeper than" in _refusal("[" * 900 + "]" * 900)


def test_load_refuses_a_huge_file(tmp_path: Path) -> None:
    file = tmp_path / "huge.yaml"
    file.write_bytes(b"#" * (documents.MAX_BYTES + 1))
    with pytest.raises(errors.SettingsError, match="larger than"):
        documents.load([str(file)])


def test_load_names_all_that_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: [")
    (tmp_path / "b.yaml").write_text("- 1\n")
    (tmp_path / "ignored.txt").write_text("a: [")
    with pytest.raises(errors.SettingsError) as raised:
        documents.load([str(tmp_path), str(tmp_path / "missing.yaml")])
    assert [name in raised.value.message for name in ("a.yaml:1", "b.yaml:1", "missing.yaml", "ignored")] == [
        True,
        True,
        True,
        False,
    ]


@given(st.binary(max_size=200))
def test_parse_never_fails_otherwise(data: bytes) -> None:
    try:
        documents.parse(data, "f")
    except errors.SettingsError:
        pass
