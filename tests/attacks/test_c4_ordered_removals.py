"""C4: a coordinator that removes machines: the storage's operator decides whether a whole history may end."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.support.backed_up_machine import BackedUpMachine, backed_up_machine

from turku.protocol.messages import KeptHistory
from turku.storage.commands import former
from turku.storage.disk import former_machines, snapshot_notes, trash

AT_ONCE = KeptHistory("web-0", keep_until="2001-01-01T00:00:00+00:00")


def on_its_volume(directory: Path, **keys: Any) -> AbstractContextManager[BackedUpMachine]:
    volume = directory / "volume"
    return backed_up_machine(directory, volumes={"data": {"path": str(volume)}}, volume=volume, **keys)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[BackedUpMachine]:
    with on_its_volume(tmp_path, retention_floor="last 3 days", trash_days=7) as machine:
        yield machine


def ordered(machine: BackedUpMachine, order: KeptHistory = AT_ONCE) -> None:
    uuid = machine.place.machine_dir.name
    machine.storage.state.var_dir.mkdir(exist_ok=True)
    former_machines.record(machine.storage.state, {uuid: order}, {})
    former.carry_out(machine.storage, machine.clock)


def test_the_newest_snapshot_stays_however_long_nobody_looks(machine: BackedUpMachine) -> None:
    before = machine.days(8)
    ordered(machine)
    # The floor counts as for any other order, and the rest can be brought back.
    assert machine.snapshots() == before[-4:]
    assert [each.name for each in trash.trashed_snapshots(machine.place)] == before[:-4]
    machine.clock.moment += timedelta(days=300)
    ordered(machine)
    assert machine.snapshots() == before[-1:]


@pytest.mark.parametrize("order", [KeptHistory("web-0"), KeptHistory("web-0", keep_until="2999-01-01T00:00:00+00:00")])
def test_history_that_is_to_be_kept_is_not_pruned(machine: BackedUpMachine, order: KeptHistory) -> None:
    before = machine.days(8)
    machine.clock.moment += timedelta(days=300)
    ordered(machine, order)
    assert machine.snapshots() == before


@pytest.mark.parametrize("date", ["9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59"])
def test_no_date_keeps_the_operator_from_seeing_the_list(machine: BackedUpMachine, date: str) -> None:
    machine.days(2)
    ordered(machine, KeptHistory("web-0", keep_until=date))
    [recorded] = former_machines.read(machine.storage.state).values()
    assert recorded.keep_until is not None
    for hours in (-24, 24):
        assert datetime.fromtimestamp(recorded.keep_until, UTC) + timedelta(hours=hours)


def test_nothing_ends_for_a_machine_that_is_backed_up_here(machine: BackedUpMachine) -> None:
    before = machine.days(8)
    uuid = machine.place.machine_dir.name
    machine.storage.state.var_dir.mkdir(exist_ok=True)
    former_machines.record(machine.storage.state, {uuid: AT_ONCE}, {uuid: object()})
    former.carry_out(machine.storage, machine.clock)
    assert machine.snapshots() == before


@pytest.mark.parametrize(
    ("configuration", "kept"),
    [
        ({"accept_removals": True, "retention_floor": "last 3 days", "trash_days": 7}, 4),
        ({"accept_removals": True, "retention_floor": "", "trash_days": 7}, 0),
        ({"accept_removals": True, "retention_floor": "", "trash_days": 0}, 8),
        ({"accept_removals": False, "retention_floor": "", "trash_days": 7}, 1),
    ],
)
def test_the_configuration_of_the_storage_decides(tmp_path: Path, configuration: dict[str, Any], kept: int) -> None:
    with on_its_volume(tmp_path, **configuration) as machine:
        before = machine.days(8)
        ordered(machine)
        assert machine.snapshots() == before[len(before) - kept :]


def test_a_snapshot_in_quarantine_keeps_all_of_its_source(tmp_path: Path) -> None:
    with on_its_volume(tmp_path, accept_removals=True, retention_floor="", trash_days=7) as machine:
        before = machine.days(3)
        snapshot_notes.change(machine.place, before[1], findings=("names end in .locked",))
        ordered(machine)
        assert machine.snapshots() == before
