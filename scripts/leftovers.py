"""Lists processes of this program that outlived what started them, for the end of a CI run.

A process is ours when its command names this checkout's interpreter or package, or a temporary folder of a test. It
ends nothing: a leftover is a bug to find, not a mess to sweep.
"""

from __future__ import annotations

import sys

import psutil

MARKS = ("michelangelo", "mactl", "kube-apiserver", "etcd", "raylet", "gcs_server")


def main(root: int) -> int:
    kin = {root, *(process.pid for process in psutil.Process().parents())}
    for process in psutil.process_iter(["pid", "cmdline", "create_time"]):
        command = " ".join(process.info["cmdline"] or ())
        started_since = process.info["create_time"] >= psutil.Process(root).create_time()
        ours = any(mark in command for mark in MARKS)
        if ours and started_since and process.pid not in kin and process.pid != psutil.Process().pid:
            print(f"{process.pid}: {command[:200]}")
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
