"""A fleet of two storages, each with its own sshd and volumes."""

from pathlib import Path

import pytest
from tests.support.fleet import Fleet
from tests.support.restore_mode import restore_mode
from tests.support.trees import snapshot_differences
from tests.system.conftest import MakeMachine

from turku.demo.private_storage import PrivateStorage

pytestmark = pytest.mark.xdist_group("system-two-storages")


@pytest.fixture(scope="module")
def secondary(fleet: Fleet) -> PrivateStorage:
    return fleet.storage("secondary")


def test_each_storage_knows_and_keeps_its_own_machines_only(
    fleet: Fleet, make_machine: MakeMachine, storage: PrivateStorage, secondary: PrivateStorage, files: Path
) -> None:
    here = make_machine({"files": {"path": str(files)}}, storage=storage)
    there = make_machine({"files": {"path": str(files)}}, storage=secondary)
    here.ping()
    there.ping()
    assert len(storage.snapshots(here.uuid, "files")) == 1
    assert len(secondary.snapshots(there.uuid, "files")) == 1
    assert storage.snapshots(there.uuid, "files") == []
    assert secondary.snapshots(here.uuid, "files") == []
    assert there.uuid not in fleet.sshds["primary"].authorized_keys.read_text()
    assert here.uuid not in fleet.sshds["secondary"].authorized_keys.read_text()


def test_a_machine_that_the_operator_moved_is_backed_up_at_the_new_place_and_restored_from_there(
    fleet: Fleet, make_machine: MakeMachine, storage: PrivateStorage, secondary: PrivateStorage, files: Path
) -> None:
    machine = make_machine({"files": {"path": str(files)}}, storage=storage)
    machine.ping()
    fleet.assign(machine, secondary)
    storage.update_config()
    secondary.update_config()
    assert machine.uuid not in fleet.sshds["primary"].authorized_keys.read_text()
    fleet.make_due(machine)
    machine.ping()
    [snapshot] = secondary.snapshots(machine.uuid, "files")
    assert snapshot_differences(files, snapshot) == []
    assert len(storage.snapshots(machine.uuid, "files")) == 1
    with restore_mode(machine) as mode:
        assert "Storage unit: secondary" in mode.lines


def test_a_new_machine_goes_to_a_storage_with_room(
    fleet: Fleet, files: Path, storage: PrivateStorage, secondary: PrivateStorage
) -> None:
    fleet.execute("UPDATE fleet_storage SET space_available = 0 WHERE name <> 'secondary'")
    machine = fleet.unregistered_machine("newcomer", {"files": {"path": str(files)}})
    machine.update_config()
    storage.update_config()
    assert fleet.storage_of(machine) is secondary
