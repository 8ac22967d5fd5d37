"""Folders for temporary files: in that of the attempt which this thread executes, else in the system's."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref

from michelangelo.uniflow import task_context

__all__ = ["Folder", "folder", "new_folder"]


def folder() -> str | None:
    """The attempt's own folder, which the worker removes after it; None: the system's is to be used."""
    context = task_context.current()
    if context is None or not context.scratch or not os.path.isdir(context.scratch):
        return None
    return context.scratch


def new_folder(owner: object) -> str:
    """A new folder in the attempt's own; in plain Python one that goes with its owner."""
    place = folder()
    if place is not None:
        return tempfile.mkdtemp(dir=place)
    made = tempfile.mkdtemp(prefix="uniflow-")
    weakref.finalize(owner, shutil.rmtree, made, ignore_errors=True)
    return made


class Folder:
    """A new folder that lives as long as this object does, or as the attempt. Give it to the value that reads in it."""

    def __init__(self) -> None:
        self.path = new_folder(self)
