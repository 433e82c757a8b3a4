"""The snapshots that are kept, and the reasons."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

import pytest

from turku.errors import InvalidValue
from turku.policy import retention
from turku.policy.retention import Snapshot, Upcoming

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
"""A Wednesday."""
BERLIN = ZoneInfo("Europe/Berlin")


def made(*moments: str) -> list[Snapshot]:
    return [Snapshot(moment, datetime.fromisoformat(moment).replace(tzinfo=UTC)) for moment in moments]


def reasons(
    rules: str, snapshots: Sequence[Snapshot], *, now: datetime = NOW, zone: tzinfo = UTC
) -> dict[str, tuple[str, ...]]:
    decisions = retention.decide(snapshots, retention.parse(rules), now=now, zone=zone)
    assert [decision.snapshot for decision in decisions] == list(snapshots)
    assert all(decision.kept == bool(decision.reasons) for decision in decisions)
    return {decision.snapshot.name: decision.reasons for decision in decisions if decision.kept}


def test_the_default_rules() -> None:
    daily = made(*(f"2026-11-{day:02}T03:00" for day in range(1, 26)))
    assert reasons("last 5 days, earliest of month", daily) == {
        "2026-11-01T03:00": ("earliest of month (2026-11)",),
        **{f"2026-11-{day}T03:00": ("last 5 days",) for day in range(21, 25)},
        "2026-11-25T03:00": ("last 5 days", "newest good snapshot"),
    }


def test_last_snapshots_are_the_newest_whatever_the_order_given() -> None:
    snapshots = made("2026-11-03", "2026-11-01", "2026-11-04", "2026-11-02")
    assert list(reasons("last 2 snapshots", snapshots)) == ["2026-11-03", "2026-11-04"]


def test_days_are_of_24_hours_up_to_the_second() -> None:
    snapshots = made("2026-11-23T11:59:59", "2026-11-23T12:00:00", "2026-11-25T12:00:00")
    assert list(reasons("last 2 days", snapshots)) == ["2026-11-23T12:00:00", "2026-11-25T12:00:00"]


def test_a_week_begins_on_sunday() -> None:
    snapshots = made("2026-11-21T23:00", "2026-11-22T00:00", "2026-11-23T00:00", "2026-11-25T00:00")
    kept = reasons("earliest of week", snapshots)
    assert kept == {
        "2026-11-22T00:00": ("earliest of week (2026-11-22)",),
        "2026-11-25T00:00": ("newest good snapshot",),
    }


def test_the_earliest_of_each_of_several_periods_is_kept() -> None:
    snapshots = made("2026-08-31", "2026-09-02", "2026-09-10", "2026-11-05", "2026-11-06")
    assert reasons("earliest of 3 months", snapshots) == {
        "2026-09-02": ("earliest of 3 months (2026-09)",),
        "2026-11-05": ("earliest of 3 months (2026-11)",),
        "2026-11-06": ("newest good snapshot",),
    }


def test_months_go_back_over_the_year() -> None:
    kept = reasons("earliest of 2 months", made("2025-12-31", "2026-01-01"), now=datetime(2026, 1, 2, tzinfo=UTC))
    assert kept["2025-12-31"] == ("earliest of 2 months (2025-12)",)


def test_days_are_those_of_the_zone() -> None:
    snapshots = made("2026-11-24T22:30", "2026-11-24T23:30", "2026-11-25T10:00")
    assert "2026-11-24T23:30" in reasons("earliest of day", snapshots, zone=BERLIN)
    assert list(reasons("earliest of day", snapshots)) == ["2026-11-25T10:00"]


def test_an_hour_that_the_clock_shows_twice_is_two_hours() -> None:
    first = datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN)
    second = first.replace(fold=1)
    snapshots = [Snapshot("second", second), Snapshot("first", first), Snapshot("later", second + timedelta(hours=3))]
    assert list(reasons("last 2 snapshots", snapshots, zone=BERLIN)) == ["second", "later"]
    now = datetime(2026, 10, 26, 2, 30, tzinfo=BERLIN)
    assert list(reasons("last 1 day", snapshots, now=now, zone=BERLIN)) == ["second", "later"]


def test_a_snapshot_from_the_future_is_kept_and_uses_up_no_place() -> None:
    snapshots = made("2026-11-20", "2026-11-21", "2026-11-22", "2027-01-01")
    assert reasons("last 2 snapshots", snapshots) == {
        "2026-11-21": ("last 2 snapshots",),
        "2026-11-22": ("last 2 snapshots", "newest good snapshot"),
        "2027-01-01": ("dated in the future",),
    }


def test_a_snapshot_of_unclear_date_is_kept() -> None:
    snapshots = [
        Snapshot("odd", None),
        Snapshot("naive", datetime(2020, 1, 1)),
        Snapshot("first", datetime.min.replace(tzinfo=BERLIN)),
        Snapshot("last", datetime.max.replace(tzinfo=UTC)),
        *made("2020-01-01", "2026-11-25"),
    ]
    kept = reasons("last 1 snapshot", snapshots)
    assert list(kept) == ["odd", "naive", "first", "last", "2026-11-25"]
    assert kept["odd"] == kept["naive"] == kept["first"] == ("date not understood",)


def test_a_held_snapshot_is_kept_and_uses_up_no_place() -> None:
    held = Snapshot("save", NOW - timedelta(hours=1), is_held=True)
    snapshots = [*made("2026-11-24", "2026-11-25"), held, Snapshot("save-odd", None, is_held=True)]
    kept = reasons("last 2 snapshots, earliest of day", snapshots)
    assert kept["save"] == ("held by name",)
    assert kept["save-odd"] == ("held by name", "date not understood")
    assert kept["2026-11-24"] == ("last 2 snapshots",)
    assert "earliest of day (2026-11-25)" in kept["2026-11-25"]


def test_none_is_deleted_where_no_rule_would_keep_any() -> None:
    snapshots = made("2025-01-01", "2025-01-02", "2025-01-03")
    assert reasons("last 5 days, earliest of month", snapshots) == {
        "2025-01-01": ("no rule would keep any",),
        "2025-01-02": ("no rule would keep any",),
        "2025-01-03": ("no rule would keep any", "newest good snapshot"),
    }
    assert len(reasons("last 5 days", [*snapshots, *made("2027-01-01"), Snapshot("odd", None)])) == 5


def test_the_newest_good_snapshot_is_kept_beside_newer_bad_ones() -> None:
    bad = [Snapshot(f"bad{day}", datetime(2026, 11, day, tzinfo=UTC), is_good=False) for day in (23, 24)]
    kept = reasons("last 3 days", [*made("2026-11-01", "2026-11-02"), *bad])
    assert kept == {"2026-11-02": ("newest good snapshot",), "bad23": ("last 3 days",), "bad24": ("last 3 days",)}


def test_a_bad_snapshot_takes_no_good_ones_place() -> None:
    bad = [Snapshot(f"bad{day}", datetime(2026, 11, day, tzinfo=UTC), is_good=False) for day in (1, 20)]
    snapshots = [*bad, *made("2026-11-02", "2026-11-03", "2026-11-10")]
    kept = reasons("last 2 snapshots, earliest of month", snapshots)
    assert set(kept) == {"bad1", "bad20", "2026-11-02", "2026-11-03", "2026-11-10"}
    assert kept["2026-11-02"] == ("earliest of month (2026-11)",)


def test_nothing_is_decided_of_nothing() -> None:
    assert retention.decide([], retention.parse("last 1 day"), now=NOW, zone=UTC) == ()


def test_without_a_rule_all_are_kept() -> None:
    decisions = retention.decide(made("2020-01-01", "2020-01-02"), retention.Retention(()), now=NOW, zone=UTC)
    assert all(decision.kept for decision in decisions)


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("last 5 days, earliest of month", "last 5 days, earliest of month"),
        ("LAST 1 DAYS,last 2 Snapshot", "last 1 day, last 2 snapshots"),
        ("  earliest  of 2\tweeks ", "earliest of 2 weeks"),
        ("earliest of 1 days", "earliest of day"),
        ("earliest of months", "earliest of month"),
        ("last 007 days", "last 7 days"),
        ("last 36500 days, last 36500 days", "last 36500 days"),
    ],
)
def test_lawful_rules_are_printed_back_in_one_form(text: str, printed: str) -> None:
    assert retention.parse(text).text == printed
    assert retention.parse(printed) == retention.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", ",", "last 5 days,", "all", "keep all", "last days", "last 0 days", "last -1 days", "last 5"),
        *("last 5 weeks", "last 1.5 days", "last 36501 days", "last 99999999999 days", "earliest of 0 months"),
        *("earliest month", "earliest of 2", "earliest of year", "last 5 days; earliest of month", "last \u0665 days"),
        *("last 5 days\0", "last 5 days\ud800", "last five days", "last 1 day," * 50 + "last 1 day", "x" * 1001),
    ],
)
def test_a_rule_that_is_not_understood_is_refused_with_a_right_one(text: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        retention.parse(text)
    if text.isascii():
        assert "last N days" in caught.value.hint


def untils(rules: str, snapshots: Sequence[Snapshot], *, zone: tzinfo = UTC) -> dict[str, str]:
    upcoming = Upcoming(NOW + timedelta(hours=12), timedelta(days=1))
    decisions = retention.decide(snapshots, retention.parse(rules), now=NOW, zone=zone, upcoming=upcoming)
    return {each.snapshot.name: each.until.strftime("%m-%dT%H:%M") for each in decisions if each.until is not None}


def test_until_of_last_days_is_as_many_days_after_the_snapshot() -> None:
    assert untils("last 5 days", made("2026-11-22T03:00", "2026-11-25T03:00")) == {
        "2026-11-22T03:00": "11-27T03:00",
        "2026-11-25T03:00": "11-30T03:00",
    }


def test_until_of_last_snapshots_counts_the_expected_ones() -> None:
    daily = made("2026-11-23", "2026-11-24", "2026-11-25")
    assert untils("last 3 snapshots", daily) == {
        "2026-11-23": "11-26T00:00",
        "2026-11-24": "11-27T00:00",
        "2026-11-25": "11-28T00:00",
    }


@pytest.mark.parametrize(
    ("rule", "end"),
    [
        ("earliest of 3 days", "11-27T00:00"),
        ("earliest of week", "11-29T00:00"),
        ("earliest of 2 weeks", "12-06T00:00"),
        ("earliest of 2 months", "01-01T00:00"),
    ],
)
def test_until_of_earliest_is_the_end_of_the_last_unit_that_counts(rule: str, end: str) -> None:
    assert untils(rule, made("2026-11-24", "2026-11-25"))["2026-11-24"] == end


def test_until_of_earliest_is_a_midnight_of_the_zone() -> None:
    assert untils("earliest of week", made("2026-11-24", "2026-11-25"), zone=BERLIN)["2026-11-24"] == "11-28T23:00"


def test_until_is_not_known_of_what_is_held_in_the_future_or_not_understood() -> None:
    snapshots = [
        Snapshot("held", NOW - timedelta(days=1), is_held=True),
        Snapshot("future", NOW + timedelta(days=1)),
        Snapshot("dateless", None),
    ]
    assert untils("last 5 days", snapshots) == {}


def test_until_is_not_known_without_a_schedule_where_it_depends_on_snapshots_to_come() -> None:
    decisions = retention.decide(
        made("2026-11-24", "2026-11-25"), retention.parse("last 1 day, last 2 snapshots"), now=NOW, zone=UTC
    )
    assert [each.until for each in decisions] == [None, None]
