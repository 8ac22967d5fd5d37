"""Two processes for all tests of strategies."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.llm.finetune.parallel.groups import Group


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Group]:
    """Two."""
    made = Group(2, tmp_path_factory.mktemp("pair"))
    yield made
    made.close()


@pytest.fixture(scope="session")
def four(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Group]:
    made = Group(4, tmp_path_factory.mktemp("four"))
    yield made
    made.close()
