"""Dates in the names of directories, and rsnapshot's intervals."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from turku.policy.timing import dated_names

ZONE = ZoneInfo("Europe/Helsinki")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("2026-11-01", datetime(2026, 10, 31, 22, 0, tzinfo=UTC)),
        ("20261101", datetime(2026, 10, 31, 22, 0, tzinfo=UTC)),
        ("web2-2026-11-01", datetime(2026, 10, 31, 22, 0, tzinfo=UTC)),
        ("2026-11-01_03-30", datetime(2026, 11, 1, 1, 30, tzinfo=UTC)),
        ("2026-11-01T03:30:15", datetime(2026, 11, 1, 1, 30, 15, tzinfo=UTC)),
        ("20261101-033015", datetime(2026, 11, 1, 1, 30, 15, tzinfo=UTC)),
        ("20261101033015", datetime(2026, 11, 1, 1, 30, 15, tzinfo=UTC)),
        ("backup.2026-11-01T03:30:15Z", datetime(2026, 11, 1, 3, 30, 15, tzinfo=UTC)),
        ("2026-11-01T03:30:15+0100", datetime(2026, 11, 1, 2, 30, 15, tzinfo=UTC)),
        ("1793500215", datetime.fromtimestamp(1793500215, UTC)),
        ("2026-13-45", None),
        ("current", None),
        ("daily.0", None),
        ("98712345678901", None),
    ],
)
def test_the_date_in_a_name(name: str, expected: datetime | None) -> None:
    assert dated_names.moment_in(name, zone=ZONE) == expected


@pytest.mark.parametrize(
    ("name", "is_interval"),
    [("daily.0", True), ("hourly.23", True), ("beta.1", True), ("daily", False), ("2026.1", False), (".sync", False)],
)
def test_rsnapshots_intervals(name: str, is_interval: bool) -> None:
    assert dated_names.is_interval(name) == is_interval
