"""The texts that people type for a time."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turku.errors import InvalidValue
from turku.policy.timing import moments

HELSINKI = ZoneInfo("Europe/Helsinki")
NOW = datetime(2026, 11, 24, 12, 30, 15, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-01 12:00", "2026-11-01T10:00:00+00:00"),
        ("2026-11-01 12:00:59", "2026-11-01T10:00:59+00:00"),
        ("2026-11-01T12:00", "2026-11-01T10:00:00+00:00"),
        ("2026-11-01 9:05", "2026-11-01T07:05:00+00:00"),
        ("2026-11-01T12:00:00+05:00", "2026-11-01T07:00:00+00:00"),
        ("2026-11-01T12:00:00Z", "2026-11-01T12:00:00+00:00"),
        ("2026-11-01", "2026-11-01T21:59:59.999999+00:00"),
        ("  2026-11-01  12:00 ", "2026-11-01T10:00:00+00:00"),
        ("now", "2026-11-24T12:30:15+00:00"),
        ("today", "2026-11-24T21:59:59.999999+00:00"),
        ("Yesterday", "2026-11-23T21:59:59.999999+00:00"),
        ("yesterday 18:30", "2026-11-23T16:30:00+00:00"),
        ("today 08:00", "2026-11-24T06:00:00+00:00"),
        ("3 days ago", "2026-11-21T12:30:15+00:00"),
        ("2 h ago", "2026-11-24T10:30:15+00:00"),
        ("2h ago", "2026-11-24T10:30:15+00:00"),
        ("an hour ago", "2026-11-24T11:30:15+00:00"),
        ("a week ago", "2026-11-17T12:30:15+00:00"),
        ("90 minutes ago", "2026-11-24T11:00:15+00:00"),
        ("1 month ago", "2026-10-24T11:30:15+00:00"),
        ("2 years ago", "2024-11-24T12:30:15+00:00"),
    ],
)
def test_a_time_is_understood(text: str, expected: str) -> None:
    assert moments.parse(text, now=NOW, zone=HELSINKI).isoformat() == expected


def test_a_month_before_a_day_that_it_has_not_is_its_last_day() -> None:
    found = moments.parse("1 month ago", now=datetime(2026, 3, 31, 12, tzinfo=UTC), zone=UTC)
    assert found == datetime(2026, 2, 28, 12, tzinfo=UTC)


def test_a_day_on_which_clocks_change_is_whole() -> None:
    end = moments.parse("2026-10-25", now=NOW, zone=HELSINKI)
    assert end.isoformat() == "2026-10-25T21:59:59.999999+00:00"


WITHOUT_SENSE = [
    *("", " ", "soon", "3 days", "days ago", "3 fortnights ago", "2026-13-01", "2026-02-30", "2026-11-01 25:00"),
    *("x" * 1000, "999999 years ago", "-3 days ago", "3.5 h ago", "\u0663 days ago", "2026-11-01\x00"),
    *("9999-12-31", "0001-01-01T00:00:00+14:00"),
]


@pytest.mark.parametrize("text", WITHOUT_SENSE)
def test_the_error_of_a_text_that_is_not_understood_shows_a_right_one(text: str) -> None:
    with pytest.raises(InvalidValue, match="is not a valid time") as refused:
        moments.parse(text, now=NOW, zone=HELSINKI)
    assert "'3 days ago'" in refused.value.hint


@given(st.text())
def test_any_text_is_a_time_or_refused(text: str) -> None:
    try:
        assert moments.parse(text, now=NOW, zone=HELSINKI).tzinfo is not None
    except InvalidValue:
        pass
