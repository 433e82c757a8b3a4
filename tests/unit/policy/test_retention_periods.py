"""Of several snapshots in one period of the schedule, one counts for ``last N snapshots`` (threats M4)."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from turku.policy import retention
from turku.policy.retention import Snapshot

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
DAY = timedelta(days=1)
DAYS = [Snapshot(f"day{age:02}", NOW - timedelta(days=age, hours=1), period=DAY) for age in range(10, 0, -1)]


def kept(rules: str, snapshots: Sequence[Snapshot], *, now: datetime = NOW) -> set[str]:
    decisions = retention.decide(snapshots, retention.parse(rules), now=now, zone=UTC)
    return {decision.snapshot.name for decision in decisions if decision.kept}


def quick(count: int, *, after: datetime, length: timedelta = DAY) -> list[Snapshot]:
    return [Snapshot(f"quick{number}", after + timedelta(minutes=1 + number), period=length) for number in range(count)]


def test_quick_backups_push_nothing_out_and_replace_nothing() -> None:
    flooded = [*DAYS, *quick(30, after=NOW - timedelta(hours=20))]
    assert kept("last 5 snapshots", DAYS) <= kept("last 5 snapshots", flooded)
    # The newest one is kept besides, as always.
    assert kept("last 5 snapshots", flooded) - kept("last 5 snapshots", DAYS) == {"quick29"}


def test_a_backup_that_comes_earlier_in_its_period_than_the_last_one_counts() -> None:
    late = Snapshot("late", NOW - timedelta(days=1, hours=-3), period=DAY)
    assert kept("last 2 snapshots", [*DAYS[:-1], late, Snapshot("on time", NOW, period=DAY)]) == {"late", "on time"}


def test_without_a_known_period_each_snapshot_counts() -> None:
    flood = [Snapshot(each.name, each.moment) for each in quick(5, after=NOW - timedelta(hours=1))]
    assert kept("last 3 snapshots", [*DAYS, *flood]) == {"quick2", "quick3", "quick4"}


def test_a_longer_schedule_of_today_does_not_thin_out_what_was_made_under_a_shorter_one() -> None:
    monthly = Snapshot("monthly", NOW, period=timedelta(days=30))
    assert kept("last 10 snapshots", [*DAYS, monthly]) == {*(each.name for each in DAYS), "monthly"}


def test_a_bad_snapshot_opens_no_period() -> None:
    poisoned = Snapshot("poisoned", NOW - timedelta(hours=5), is_good=False, period=DAY)
    good = Snapshot("good", NOW - timedelta(hours=2), period=DAY)
    assert "good" in kept("last 2 snapshots", [*DAYS[:-1], poisoned, good, *quick(3, after=NOW - timedelta(hours=1))])


def test_retention_step_by_step_keeps_the_same_as_at_the_end() -> None:
    stepwise: list[Snapshot] = []
    everything: list[Snapshot] = []
    for day in range(12):
        for hour in range(24):
            moment = NOW - timedelta(days=12 - day, hours=-hour)
            made = Snapshot(f"{day:02}-{hour:02}", moment, period=DAY)
            everything.append(made)
            stepwise.append(made)
            names = kept("last 4 snapshots", stepwise, now=moment)
            stepwise = [each for each in stepwise if each.name in names]
    assert {each.name for each in stepwise} == kept("last 4 snapshots", everything)
    assert len(stepwise) == 5
