"""The agreement of two clocks, and the message where they do not agree."""

from datetime import UTC, datetime, timedelta

import pytest

from turku.policy.timing import clock_agreement

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("difference", "expected"),
    [
        (timedelta(0), ""),
        (timedelta(minutes=5), ""),
        (timedelta(minutes=-5), ""),
        (timedelta(minutes=6), "6 min ahead of the clock of the coordinator"),
        (timedelta(minutes=-90), "1 h behind the clock of the coordinator"),
        (timedelta(hours=5), "5 h ahead of the clock of the coordinator"),
        (timedelta(days=-3650), "3650 d behind the clock of the coordinator"),
    ],
)
def test_clocks_disagree_from_five_minutes_on(difference: timedelta, expected: str) -> None:
    assert clock_agreement.disagreement(NOW + difference, NOW, whose="the coordinator") == expected


@pytest.mark.parametrize(("minutes", "expected"), [(-60, False), (0, False), (5, False), (6, True)])
def test_a_moment_is_ahead_only_beyond_what_clocks_may_differ(minutes: int, expected: bool) -> None:
    assert clock_agreement.is_ahead(NOW + timedelta(minutes=minutes), now=NOW) is expected
    assert not clock_agreement.is_ahead(None, now=NOW)
