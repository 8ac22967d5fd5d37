"""Timestamps and durations: what is read is exact, what is shown is kubectl's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from michelangelo.meta import durations, timestamps

NOON = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)
INSTANTS = st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 30), timezones=st.just(UTC))


def test_now_takes_the_clock_that_it_is_given() -> None:
    assert timestamps.now(lambda: NOON) == "2026-01-31T12:00:00Z"
    assert timestamps.now_micros(lambda: NOON) == "2026-01-31T12:00:00.000000Z"


@given(INSTANTS)
def test_timestamp_with_microseconds_reads_back_exactly(instant: datetime) -> None:
    assert timestamps.parse(timestamps.format_micros(instant)) == instant
    assert timestamps.parse(timestamps.format_seconds(instant)) == instant.replace(microsecond=0)


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-31T13:30:00+01:30",
        "2026-01-31t12:00:00z",
        "2026-01-31T12:00:00.000000000Z",
        "2026-01-31T10:00:00-02:00",
    ],
)
def test_parse_knows_offsets_and_fractions(text: str) -> None:
    assert timestamps.parse(text) == NOON


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2026-01-31",
        "2026-01-31T12:00:00",
        "2026-02-30T12:00:00Z",
        "2026-01-31 12:00:00Z",
        "0000-01-01T00:00:00Z",
    ],
)
def test_parse_refuses_what_is_no_timestamp(text: str) -> None:
    with pytest.raises(ValueError):
        timestamps.parse(text)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-10, "<invalid>"),
        (-1, "0s"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (312, "5m12s"),
        (600, "10m"),
        (3 * 3600 - 1, "179m"),
        (3 * 3600, "3h"),
        (3 * 3600 + 60, "3h1m"),
        (8 * 3600 + 60, "8h"),
        (47 * 3600, "47h"),
        (48 * 3600, "2d"),
        (52 * 3600, "2d4h"),
        (8 * 86400 + 3600, "8d"),
        (400 * 86400, "400d"),
        (730 * 86400, "2y"),
        (800 * 86400, "2y70d"),
        (3000 * 86400, "8y"),
    ],
)
def test_age_is_as_kubectl_shows_it(seconds: int, shown: str) -> None:
    assert timestamps.age(timestamps.format_seconds(NOON), NOON + timedelta(seconds=seconds)) == shown


def test_age_of_what_is_no_timestamp_is_unknown() -> None:
    assert timestamps.age("", NOON) == "<unknown>"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0s", 0),
        ("600s", 600),
        ("10m", 600),
        ("1h30m", 5400),
        ("1.5s", 1.5),
        ("250ms", 0.25),
        ("2d", 172800),
        ("1h1m1s1ms", 3661.001),
    ],
)
def test_duration_is_read(text: str, seconds: float) -> None:
    assert durations.seconds(text) == seconds
    assert durations.parse(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text", ["", "5", "s", "-1s", "1 s", "1s ", "1w", "1s1", "9" * 18 + "d", "1" * 100 + "s", "١s", "1.s"]
)
def test_duration_refuses_what_is_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"duration|longer"):
        durations.seconds(text)


@given(st.timedeltas(timedelta(0), timedelta(days=10_000)))
def test_duration_text_reads_back_exactly(value: timedelta) -> None:
    assert durations.parse(durations.text(value)) == value


def test_duration_text_is_short() -> None:
    assert durations.text(timedelta(0)) == "0s"
    assert durations.text(timedelta(hours=1, minutes=30)) == "1h30m"
    assert durations.text(timedelta(seconds=1.5)) == "1.5s"
    with pytest.raises(ValueError, match="negative"):
        durations.text(timedelta(seconds=-1))
