"""A source of which nothing was ever stored leaves no directory on the volume."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.backed_up_machine import BackedUpMachine, backed_up_machine

from turku.core import command

PROGRAM = Path(sys.executable).with_name("turku-storage")
MODES = ("link-dest", "none")


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[BackedUpMachine]:
    with backed_up_machine(tmp_path, volume=tmp_path / "storage" / "volume") as machine:
        yield machine


def entries(machine: BackedUpMachine) -> list[str]:
    """Return the names in the machine's directory without the source's lock."""
    return sorted(path.name for path in machine.machine_dir.iterdir() if path.suffix != ".lock")


def gc(machine: BackedUpMachine) -> str:
    completed = command.run([PROGRAM, "gc", "--config-dir", machine.storage.config_dir], timeout_seconds=60)
    return completed.stdout.decode()


@pytest.mark.parametrize("mode", MODES)
def test_a_first_backup_of_a_path_that_is_not_there_leaves_nothing(machine: BackedUpMachine, mode: str) -> None:
    machine.source_dir.rmdir()
    outcome = machine.back_up(snapshot_mode=mode)
    assert not outcome.success
    assert "the source's directory is not there" in outcome.summary
    assert entries(machine) == []
    machine.source_dir.mkdir()
    (machine.source_dir / "file").touch()
    assert machine.back_up(snapshot_mode=mode).success
    assert entries(machine) != []


@pytest.mark.parametrize("mode", MODES)
def test_a_source_that_was_backed_up_keeps_what_it_has(machine: BackedUpMachine, mode: str) -> None:
    # Even one that was empty then.
    assert machine.back_up(snapshot_mode=mode).success
    before = entries(machine)
    machine.source_dir.rmdir()
    assert not machine.back_up(snapshot_mode=mode).success
    assert entries(machine) == before
    assert gc(machine).startswith("nothing to remove")
    assert entries(machine) == before


def test_what_arrived_of_an_unfinished_backup_stays(machine: BackedUpMachine) -> None:
    staging = machine.place.staging
    staging.mkdir(parents=True)
    (staging / "arrived").touch()
    machine.source_dir.rmdir()
    assert not machine.back_up().success
    assert (staging / "arrived").exists()
    assert gc(machine).startswith("nothing to remove")
    assert (staging / "arrived").exists()


@pytest.mark.parametrize("name", ["etc.snapshots/.staging", "etc.snapshots"])
def test_gc_removes_what_a_killed_run_left(machine: BackedUpMachine, name: str) -> None:
    (machine.machine_dir / name).mkdir(parents=True)
    assert gc(machine) == "the empty directories of 1 source removed, of which nothing was ever stored\n"
    assert entries(machine) == []
    assert gc(machine) == "nothing to remove\n"


def test_gc_leaves_an_empty_tree_that_is_a_backup(machine: BackedUpMachine) -> None:
    # As a storage of the existing system has it.
    (machine.machine_dir / "etc").mkdir()
    assert gc(machine) == "nothing to remove\n"
    assert entries(machine) == ["etc"]
    shutil.rmtree(machine.machine_dir / "etc")
