"""Fixtures of the tests of blobs: an S3 server on loopback, one for all of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.blobs import s3_server


@pytest.fixture(scope="session")
def s3_session() -> Iterator[s3_server.S3]:
    with s3_server.serving() as server:
        yield server


@pytest.fixture
def s3(s3_session: s3_server.S3) -> Iterator[s3_server.S3]:
    yield s3_session
    s3_session.close()


@pytest.fixture
def gate(s3: s3_server.S3) -> Iterator[s3_server.Gate]:
    """In front of the server; shut it to make the server unreachable."""
    opened = s3_server.Gate(s3.port)
    yield opened
    opened.shut()
