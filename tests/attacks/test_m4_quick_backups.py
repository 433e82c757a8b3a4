"""M4: retention cut short, then many quick backups: what each guard of the storage keeps by itself.

Real rsync, a clock of the test's own. Each test switches the other guards off, the last ones let all of them work.
"""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from tests.support.backed_up_machine import BackedUpMachine, backed_up_machine

from turku.core.configuration.declaration import with_values
from turku.policy import names
from turku.storage.disk import history, snapshot_notes, trash

DAY_SECONDS = 24 * 3600.0


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[BackedUpMachine]:
    """A machine whose storage has neither floor nor trash, and counts by the slots that it is told."""
    with backed_up_machine(tmp_path) as machine:
        yield machine


def flood(machine: BackedUpMachine, count: int, **options: object) -> None:
    """So many backups of poisoned content, a minute apart."""
    for number in range(count):
        (machine.source_dir / "diary").write_text(f"poisoned {number}\n")
        outcome = machine.back_up(**options)
        assert outcome.success, outcome.summary


def test_quick_backups_do_not_push_out_what_last_snapshots_keeps(machine: BackedUpMachine) -> None:
    rules = {"retention": "last 5 snapshots", "period_seconds": DAY_SECONDS}
    before = machine.days(7, **rules)[-5:]
    assert machine.snapshots() == before
    flood(machine, 12, **rules)
    assert machine.snapshots()[:-1] == before
    contents = [(machine.place.snapshot(name) / "diary").read_text() for name in before]
    assert not any("poisoned" in content for content in contents)


def test_a_quicker_schedule_is_no_way_around_it(machine: BackedUpMachine) -> None:
    machine.storage = with_values(machine.storage, minimum_period_seconds=3600)
    before = machine.days(5, retention="last 5 snapshots", period_seconds=DAY_SECONDS)
    # What the machine declares now: cron * * * * *.
    flood(machine, 12, retention="last 5 snapshots", period_seconds=60.0)
    assert machine.snapshots()[:-1] == before


def test_nor_is_a_coordinator_of_the_existing_system_which_sends_no_period(machine: BackedUpMachine) -> None:
    machine.storage = with_values(machine.storage, minimum_period_seconds=3600)
    before = machine.days(5, retention="last 5 snapshots")
    flood(machine, 12, retention="last 5 snapshots")
    assert machine.snapshots()[:-1] == before


def test_a_schedule_said_to_be_of_a_month_does_not_thin_out_the_days_before(machine: BackedUpMachine) -> None:
    before = machine.days(5, retention="last 5 snapshots", period_seconds=DAY_SECONDS)
    flood(machine, 3, retention="last 5 snapshots", period_seconds=31 * DAY_SECONDS)
    assert machine.snapshots()[:-1] == before


def test_the_operator_s_floor_keeps_what_the_machine_s_rules_would_not(machine: BackedUpMachine) -> None:
    before = machine.days(6)
    flood(machine, 5, retention="last 1 snapshots", retention_floor="last 7 days")
    assert machine.snapshots()[:6] == before


def test_a_floor_that_is_not_understood_removes_no_snapshot(machine: BackedUpMachine) -> None:
    before = machine.days(3)
    flood(machine, 2, retention="last 1 snapshots", retention_floor="all of it")
    assert machine.snapshots()[:3] == before


def test_snapshots_that_retention_removes_all_the_same_are_in_the_trash(machine: BackedUpMachine) -> None:
    machine.storage = with_values(machine.storage, trash_days=7)
    before = machine.days(4)
    flood(machine, 5, retention="last 1 snapshots")
    trashed = {each.name: each for each in trash.trashed_snapshots(machine.place)}
    assert set(before) <= trashed.keys()
    trash.restore(trashed[before[0]], now=machine.clock.moment, trash_days=7)
    # The next runs leave it in history, for a while.
    flood(machine, 2, retention="last 1 snapshots")
    assert before[0] in machine.snapshots()
    machine.clock.moment += timedelta(days=8)
    flood(machine, 1, retention="last 1 snapshots")
    assert before[0] not in machine.snapshots()


def test_snapshots_are_named_and_dated_by_the_storage_s_clock(machine: BackedUpMachine) -> None:
    (machine.source_dir / "file").write_text("from another time")
    outcome = machine.back_up(period_seconds=DAY_SECONDS)
    assert outcome.snapshot is not None
    parsed = names.parse_snapshot_name(outcome.snapshot, source="etc", zone=machine.storage.state.timezone)
    assert parsed.moment == machine.clock.moment
    assert snapshot_notes.read(machine.place, outcome.snapshot).period == timedelta(days=1)
    assert history.newest(machine.place, machine.storage.state.timezone, now=machine.clock.now()) is not None
