"""``one_file_system``: what is mounted below a source stays out of its backup, and its mount points are there."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.support.fleet import Fleet
from tests.support.loop_volume import loop_volume
from tests.support.trees import listing
from tests.system.conftest import MakeMachine
from tests.system.test_agent_restore import agent, output

from turku.core import command

pytestmark = pytest.mark.root


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Path]:
    """A directory with another file system mounted in it, which has one mounted in it too."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount file systems")
    tree = tmp_path / "tree"
    (tree / "disk [1]").mkdir(parents=True)
    (tree / "file").write_text("own\n")
    (tree / "disk [1]" / "beneath").write_text("covered as soon as the disk is mounted\n")
    with ExitStack() as stack:
        # Before anything is mounted, this process has a mount namespace of its own from it.
        stack.enter_context(loop_volume("ext4", size_bytes=8 * 1024 * 1024))
        for place in ("disk [1]", "disk [1]/inner"):
            (tree / place).mkdir(exist_ok=True)
            command.run(["mount", "-t", "tmpfs", "none", tree / place], timeout_seconds=60)
            stack.callback(command.run, ["umount", tree / place], timeout_seconds=60)
            (tree / place / "mounted").write_text("another file system\n")
        yield tree


@pytest.mark.parametrize("mode", ["link-dest", "none"])
def test_mounts_are_empty_directories_and_come_back_as_such(
    fleet: Fleet, make_machine: MakeMachine, tree: Path, tmp_path: Path, mode: str
) -> None:
    def kept() -> set[str]:
        if mode == "none":
            return listing(fleet.storage_of(machine).machine_directory(machine.uuid) / "tree")
        return listing(fleet.snapshots(machine, "tree")[-1])

    machine = make_machine({"tree": {"path": str(tree), "snapshot_mode": mode}})
    machine.ping()
    assert kept() == {"file", "disk [1]", "disk [1]/inner", "disk [1]/inner/mounted", "disk [1]/mounted"}

    # From the next backup on, what an earlier one has of it is not carried on.
    machine.declare({"tree": {"path": str(tree), "snapshot_mode": mode, "one_file_system": True}})
    machine.update_config()
    fleet.make_due(machine)
    said = "\n".join(machine.ping().last_lines)
    assert kept() == {"file", "disk [1]"}
    assert f"other file systems are not backed up with it (one_file_system): {tree / 'disk [1]'}" not in said
    assert "1 that the kernel makes" in said

    if mode == "link-dest":
        agent(machine, "restore", "tree", "--to", tmp_path / "back")
        assert listing(tmp_path / "back") == {"file", "disk [1]"}
    assert "one_file_system: True" in output(agent(machine, "check"))


def test_a_directory_that_is_mounted_onto_itself_stays_in_the_backup(
    fleet: Fleet, make_machine: MakeMachine, tree: Path
) -> None:
    # As a systemd unit with ProtectHome=read-only has /home.
    (tree / "home").mkdir()
    (tree / "home" / "file").write_text("own\n")
    command.run(["mount", "--bind", tree / "home", tree / "home"], timeout_seconds=60)
    try:
        machine = make_machine({"tree": {"path": str(tree), "one_file_system": True}})
        machine.ping()
    finally:
        command.run(["umount", tree / "home"], timeout_seconds=60)
    assert listing(fleet.snapshots(machine, "tree")[-1]) == {"file", "disk [1]", "home", "home/file"}


def test_a_volume_of_the_storage_on_this_machine_is_excluded(
    fleet: Fleet, make_machine: MakeMachine, tree: Path
) -> None:
    (tree / "disk [1]" / ".turku-volume").write_text("{}")
    machine = make_machine({"tree": {"path": str(tree)}})
    said = "\n".join(machine.ping().last_lines)
    assert listing(fleet.snapshots(machine, "tree")[-1]) == {"file", "disk [1]"}
    assert f"{tree / 'disk [1]'} is not backed up: it is a volume of the storage on this machine" in said


def test_a_restore_in_place_touches_nothing_that_is_mounted(
    fleet: Fleet, make_machine: MakeMachine, tree: Path
) -> None:
    machine = make_machine({"tree": {"path": str(tree), "one_file_system": True}})
    (tree / "old").write_text("of the backup\n")
    machine.ping()
    (tree / "old").unlink()
    (tree / "new").write_text("to be deleted\n")
    (tree / "new directory" / "disk").mkdir(parents=True)
    (tree / "new directory" / "file").write_text("beside a mounted disk\n")
    command.run(["mount", "-t", "tmpfs", "none", tree / "new directory/disk"], timeout_seconds=60)
    try:
        (tree / "new directory/disk/mounted").write_text("another file system\n")
        asked = ("restore", "tree", "--in-place", "--delete", "--yes")
        previewed = output(agent(machine, *asked, "--dry-run"))
        assert "delete  new\n" in previewed
        assert "mounted" not in previewed

        said = output(agent(machine, *asked, codes=range(256)))

        assert "new directory could not be deleted: another file system, a storage's volume" in said
        assert (tree / "new directory/disk/mounted").exists()
    finally:
        command.run(["umount", tree / "new directory/disk"], timeout_seconds=60)
    assert (tree / "disk [1]/mounted").exists()
    assert (tree / "disk [1]/inner/mounted").exists()
    assert (tree / "old").read_text() == "of the backup\n"
    assert not (tree / "new").exists()


def test_a_restore_in_place_deletes_nothing_in_a_volume(fleet: Fleet, make_machine: MakeMachine, tree: Path) -> None:
    (tree / "disk [1]" / ".turku-volume").write_text("{}")
    machine = make_machine({"tree": {"path": str(tree)}})
    machine.ping()
    agent(machine, "restore", "tree", "--in-place", "--delete", "--yes")
    assert (tree / "disk [1]/mounted").exists()


def test_files_of_a_mounted_directory_in_an_earlier_snapshot_come_back(
    fleet: Fleet, make_machine: MakeMachine, tree: Path
) -> None:
    machine = make_machine({"tree": {"path": str(tree), "one_file_system": False}})
    machine.ping()
    machine.declare({"tree": {"path": str(tree), "one_file_system": True}})
    (tree / "disk [1]/mounted").unlink()
    agent(machine, "restore", "tree", "--in-place", "--yes")
    assert (tree / "disk [1]/mounted").read_text() == "another file system\n"
