"""C4: a coordinator that orders history away: the storage's own floor and its own trash stand against it."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.support.backed_up_machine import BackedUpMachine, backed_up_machine, fingerprint

from turku.storage.disk import trash

NOTHING_KEPT = {"retention": "last 1 snapshots", "retention_floor": "last 1 snapshots"}
HOSTILE: dict[str, dict[str, Any]] = {
    "retention": {},
    "a floor of its own": {"retention_floor": None},
    "slots of no length": {"period_seconds": 0.0},
    "slots without end": {"period_seconds": 1e300},
    "no history": {"snapshot_mode": "none"},
    "no quota": {"quota_bytes": 1 << 60},
}


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[BackedUpMachine]:
    """A storage with what it has by default, but a floor that is seen within a short history."""
    floor = "last 3 days, last 4 snapshots"
    with backed_up_machine(tmp_path, retention_floor=floor, minimum_period_seconds=3600, trash_days=7) as machine:
        yield machine


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE.keys())
def test_the_storage_s_own_floor_stands(machine: BackedUpMachine, hostile: dict[str, Any]) -> None:
    before = machine.days(8)
    for _ in range(6):
        assert machine.back_up(**{**NOTHING_KEPT, **hostile}).success
    # Of the last snapshots one place goes to the newest period. The days are kept whole.
    assert set(before[-3:]) <= set(machine.snapshots())


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE.keys())
def test_snapshots_that_it_orders_away_can_be_restored_from_the_trash_for_days(
    machine: BackedUpMachine, hostile: dict[str, Any]
) -> None:
    before = machine.days(8)
    known = {name: fingerprint(machine.place.snapshot(name)) for name in before}
    for _ in range(4):
        machine.clock.moment += timedelta(days=1)
        assert machine.back_up(**{**NOTHING_KEPT, **hostile}).success
    for trashed in trash.trashed_snapshots(machine.place):
        trash.restore(trashed, now=machine.clock.moment, trash_days=machine.storage.retention.trash_days)
    assert known == {name: fingerprint(machine.place.snapshot(name)) for name in before}
    # Its next orders do not take them again.
    assert machine.back_up(**{**NOTHING_KEPT, **hostile}).success
    assert set(before) <= set(machine.snapshots())


def test_the_trash_goes_by_the_storage_s_clock_alone(machine: BackedUpMachine) -> None:
    before = machine.days(8)
    assert machine.back_up(**NOTHING_KEPT).success
    trashed = [each.name for each in trash.trashed_snapshots(machine.place)]
    assert trashed == before[:4]
    machine.clock.moment += timedelta(days=6)
    machine.back_up(**NOTHING_KEPT)
    assert set(trashed) <= {each.name for each in trash.trashed_snapshots(machine.place)}
    machine.clock.moment += timedelta(days=2)
    machine.back_up(**NOTHING_KEPT)
    assert not set(trashed) & {each.name for each in trash.trashed_snapshots(machine.place)}


def test_an_order_without_a_source_removes_no_snapshot(machine: BackedUpMachine) -> None:
    # Unpublished, reassigned, inactive: the storage is not asked, and only a success removes snapshots.
    before = machine.days(5)
    machine.clock.moment += timedelta(days=300)
    assert machine.snapshots() == before
