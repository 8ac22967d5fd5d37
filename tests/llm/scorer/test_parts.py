"""Logs and parts: whatever is torn off, damaged or written twice, what is believed was written, once, as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from michelangelo import errors
from michelangelo.llm.scorer import parts
from michelangelo.llm.scorer.parts import LogWriter

OUTPUTS = st.dictionaries(st.text(max_size=8), st.text(max_size=30) | st.integers() | st.none(), max_size=3)
LOGS = st.lists(st.tuples(st.booleans(), OUTPUTS), min_size=1, max_size=12)
"""For each row: whether it came back, and with what."""


def written(path: Path, rows: list[tuple[bool, dict[str, Any]]]) -> dict[int, bytes]:
    """A log of these rows; the outputs of those that came back."""
    path.unlink(missing_ok=True)
    done = {}
    with LogWriter(path) as log:
        for number, (came_back, output) in enumerate(rows):
            log.submitted([number])
            if came_back:
                done[number] = json.dumps(output).encode()
                log.done(number, f"{number:016x}", {"p": number}, done[number])
    return done


def outputs(path: Path, state: parts.LogState) -> dict[int, bytes]:
    data = path.read_bytes()
    return {number: data[row.offset : row.offset + row.num_bytes] for number, row in state.done.items()}


@given(rows=LOGS)
def test_log_gives_back_what_was_written(tmp_path_factory: pytest.TempPathFactory, rows: Any) -> None:
    path = tmp_path_factory.mktemp("log") / "a.log"
    done = written(path, rows)
    state = parts.read_log([path])
    assert outputs(path, state) == done
    assert state.suspects == {number for number in range(len(rows)) if number not in done}
    assert (state.num_lost, state.num_damaged) == (len(rows) - len(done), 0)
    assert all(row.digest == f"{number:016x}" for number, row in state.done.items())


@given(rows=LOGS, data=st.data())
def test_log_cut_anywhere_has_a_beginning_of_the_rows(
    tmp_path_factory: pytest.TempPathFactory, rows: Any, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("log") / "a.log"
    done = written(path, rows)
    whole = path.read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut])
    state = parts.read_log([path])
    found = outputs(path, state)
    assert list(found.items()) == list(done.items())[: len(found)]
    # Each row that is not believed was said to be given to the engine, or not yet.
    assert state.num_damaged <= 1
    assert state.suspects.isdisjoint(found)


@given(rows=LOGS, data=st.data())
def test_log_with_a_changed_byte_believes_no_other_output(
    tmp_path_factory: pytest.TempPathFactory, rows: Any, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("log") / "a.log"
    done = written(path, rows)
    changed = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(changed) - 1))
    changed[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(changed)
    found = outputs(path, parts.read_log([path]))
    assert {number: done[number] for number in found} == found


@given(first=LOGS, second=LOGS)
def test_row_in_several_logs_is_believed_once(
    tmp_path_factory: pytest.TempPathFactory, first: Any, second: Any
) -> None:
    folder = tmp_path_factory.mktemp("logs")
    one, other = written(folder / "a.log", first), written(folder / "b.log", second)
    state = parts.read_log([folder / "a.log", folder / "b.log", folder / "missing.log"])
    assert set(state.done) == set(one) | set(other)
    assert all(row.path.name == ("a.log" if number in one else "b.log") for number, row in state.done.items())


def test_part_is_the_outputs_in_order(tmp_path: Path) -> None:
    rows = [(True, {"n": number}) for number in range(5)]
    done = written(tmp_path / "a.log", rows)
    state = parts.read_log([tmp_path / "a.log"])
    facts = parts.seal(tmp_path / "part", [state.done[number] for number in (4, 0, 2)])
    expected = b"".join(done[number] + b"\n" for number in (4, 0, 2))
    assert (tmp_path / "part").read_bytes() == expected == b"".join(parts.copy_lines(tmp_path / "part", facts))
    assert facts.num_bytes == len(expected)


def test_changed_part_is_refused(tmp_path: Path) -> None:
    written(tmp_path / "a.log", [(True, {"n": 1})])
    state = parts.read_log([tmp_path / "a.log"])
    facts = parts.seal(tmp_path / "part", list(state.done.values()))
    (tmp_path / "part").write_bytes(b'{"n": 2}\n')
    with pytest.raises(errors.ScoringError, match="is not as it was written"):
        list(parts.copy_lines(tmp_path / "part", facts))
