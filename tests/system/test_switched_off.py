"""Machines and storages that are switched off, by themselves or by the operator."""

import json
from pathlib import Path

import pytest
from tests.support.fleet import Fleet
from tests.system.conftest import MakeMachine

from turku.demo.private_machine import PrivateMachine
from turku.demo.private_storage import PrivateStorage


def _configure(host: PrivateMachine | PrivateStorage, **keys: object) -> None:
    (host.config_dir / "config.d" / "zz-test.json").write_text(json.dumps(keys))
    host.update_config()


def test_an_unpublished_machine_is_not_backed_up_until_it_is_published_again(
    fleet: Fleet, make_machine: MakeMachine, files: Path, storage: PrivateStorage
) -> None:
    machine = make_machine({"files": {"path": str(files)}})
    _configure(machine, published=False)
    storage.update_config()
    assert machine.uuid not in fleet.sshds["primary"].authorized_keys.read_text()
    machine.ping()
    assert fleet.snapshots(machine, "files") == []

    _configure(machine, published=True)
    storage.update_config()
    machine.ping()
    assert len(fleet.snapshots(machine, "files")) == 1


@pytest.fixture
def other_storage(fleet: Fleet) -> PrivateStorage:
    return fleet.storages.get("switchable") or fleet.storage("switchable")


def test_an_unpublished_storage_gets_no_backups_until_it_is_published_again(
    fleet: Fleet, make_machine: MakeMachine, files: Path, other_storage: PrivateStorage
) -> None:
    machine = make_machine({"files": {"path": str(files)}}, storage=other_storage)
    _configure(other_storage, published=False)
    machine.ping()
    assert fleet.snapshots(machine, "files") == []

    _configure(other_storage, published=True)
    machine.ping()
    assert len(fleet.snapshots(machine, "files")) == 1


def test_a_source_that_the_operator_disabled_is_left_alone(
    fleet: Fleet, make_machine: MakeMachine, files: Path
) -> None:
    machine = make_machine({"on": {"path": str(files)}, "switched-off": {"path": str(files)}})
    fleet.execute("UPDATE backups_source SET active = FALSE WHERE name = 'switched-off'")
    machine.ping()
    assert len(fleet.snapshots(machine, "on")) == 1
    assert fleet.snapshots(machine, "switched-off") == []
