"""A bounded log keeps the beginning and the end, and says what is missing."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from michelangelo.executors import logs


@given(st.lists(st.binary(max_size=60), max_size=30), st.integers(2, 100))
def test_log_keeps_head_and_tail(pieces: list[bytes], limit: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "deep", "a.log")
        log = logs.BoundedLog(str(path), limit)
        for piece in pieces:
            log.write(piece)
        log.close()
        log.close()
        kept = path.read_bytes()
    whole = b"".join(pieces)
    if len(whole) <= limit:
        assert kept == whole
        return
    said = re.search(rb"\n\[(\d+) bytes of output left out here: over the limit of the log\]\n", kept)
    assert said is not None
    head, tail = whole[: limit // 2], whole[len(whole) - (limit - limit // 2) :]
    assert kept == head + said.group(0) + tail
    assert int(said.group(1)) == len(whole) - len(head) - len(tail)


def test_head_is_readable_before_the_end(tmp_path: Path) -> None:
    log = logs.BoundedLog(str(tmp_path / "a.log"), 100)
    log.write(b"at once")
    assert (tmp_path / "a.log").read_bytes() == b"at once"
    log.close()
