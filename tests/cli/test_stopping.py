"""Ctrl-C is taken note of at any instant, also in the middle of a line of progress."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROGRAM = """
import sys
from michelangelo.cli.stopping import stopping

with stopping("it stops after this step") as asked:
    print("writing", flush=True)
    for _ in range(2000):
        print("x" * 100, file=sys.stderr, flush=True)
print(len(asked))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_signal_in_the_middle_of_a_line_is_taken_note_of() -> None:
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], env=buffered, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        deadline = time.monotonic() + 60.0
        # Nobody reads: the pipe is full after some lines, and the program waits in a call with descriptor 2.
        while Path(f"/proc/{process.pid}/syscall").read_text().split()[1:2] != ["0x2"]:
            assert time.monotonic() < deadline
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err[-2000:]
    assert "it stops after this step\n" in err
    assert out == "1\n"
