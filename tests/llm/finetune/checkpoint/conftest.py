"""A file system that fails when told to, empty at the start of each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.llm.finetune.checkpoint.flaky_files import FlakyFileSystem


@pytest.fixture
def flaky(_one_thread: None) -> Iterator[type[FlakyFileSystem]]:
    FlakyFileSystem.reset()
    yield FlakyFileSystem
    FlakyFileSystem.reset()
