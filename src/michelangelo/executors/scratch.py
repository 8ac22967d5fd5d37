"""Folders for the temporary files of attempts, each removed after its attempt, however that ended.

The worker makes the folder of an attempt and removes it when the attempt ends by itself (worker/call.py); here it is
named, removed when that did not happen, and found again by the name of the run when the driver itself was killed.
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Collection

__all__ = ["ScratchFolders", "remove_left"]


class ScratchFolders:
    """The folders of one executor of the run `run_id`, in one that only this user can enter. For one thread."""

    def __init__(self, run_id: str) -> None:
        self.root = os.path.join(tempfile.gettempdir(), _prefix(run_id) + os.urandom(6).hex())
        self._exists = False

    def path(self, attempt_id: str) -> str:
        """Where the worker makes the folder of an attempt. Raises OSError when there is no place for one."""
        if not self._exists:
            os.mkdir(self.root, 0o700)
            self._exists = True
        return os.path.join(self.root, _as_name(attempt_id))

    def remove(self, attempt_id: str) -> None:
        """Remove what an attempt left; in a thread of its own, for it may be much."""
        path = os.path.join(self.root, _as_name(attempt_id))
        if os.path.lexists(path):
            threading.Thread(target=shutil.rmtree, args=(path, True), daemon=True).start()

    def close(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)


def remove_left(run_id: str, *, but: Collection[str]) -> None:
    """Remove the folders that other executors of the run left behind."""
    for root in glob.glob(glob.escape(os.path.join(tempfile.gettempdir(), _prefix(run_id))) + "*"):
        with contextlib.suppress(OSError):
            if root not in but and os.lstat(root).st_uid == os.getuid():
                shutil.rmtree(root, ignore_errors=True)


def _prefix(run_id: str) -> str:
    return f"michelangelo-{_as_name(run_id)}-"


def _as_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", text)[:200]
