"""A file that is mostly a hole needs the room that its data takes, not its length: restored and drilled."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support import trees
from tests.support.fleet import Fleet
from tests.support.loop_volume import loop_volume
from tests.system.conftest import MakeMachine

from turku.core import command
from turku.core.filesystem import holes
from turku.demo import programs
from turku.demo.private_machine import PrivateMachine

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a file system")]
MEBIBYTE = 2**20
LENGTH = 400 * MEBIBYTE


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MiB."""
    with loop_volume("ext4", size_bytes=64 * MEBIBYTE) as directory:
        yield directory


@pytest.fixture
def machine(make_machine: MakeMachine, tmp_path: Path) -> PrivateMachine:
    """A machine with a disk image of 400 MiB, 2 of them data, that has three names."""
    tree = tmp_path / "images"
    tree.mkdir()
    with (tree / "disk").open("wb") as file:
        for position in (0, LENGTH // 2):
            file.seek(position)
            file.write(os.urandom(MEBIBYTE))
        file.truncate(LENGTH)
    for name in ("same", "same too"):
        os.link(tree / "disk", tree / name)
    machine = make_machine({"images": {"path": str(tree)}})
    machine.ping()
    return machine


def restore(machine: PrivateMachine, *words: str | Path, code: int = 0) -> str:
    arguments = ("--config-dir", machine.config_dir, "images", *words)
    completed = programs.run("turku-agent", "restore", *arguments, expected_codes=range(256))
    printed = "\n".join((completed.stdout.decode(), *completed.last_lines))
    assert completed.exit_code == code, printed
    return printed


def test_a_sparse_file_longer_than_what_is_free_is_restored(fleet: Fleet, machine: PrivateMachine, small: Path) -> None:
    said = restore(machine, "--to", small / "all")
    assert "3 verified" in said
    # There is no room for it as long as it has no holes.
    log = fleet.storage_of(machine).log_file.read_text().splitlines()
    assert not [line for line in log if machine.uuid in line and "the agent makes the holes" in line]
    status = (small / "all" / "disk").stat()
    assert (status.st_size, status.st_nlink) == (LENGTH, 3)
    assert status.st_blocks * 512 < 3 * MEBIBYTE


def test_one_path_that_is_sparse_is_restored(machine: PrivateMachine, small: Path) -> None:
    restore(machine, "--to", small / "one", "disk")
    assert (small / "one" / "disk").stat().st_blocks * 512 < 3 * MEBIBYTE


def test_the_agent_makes_holes_where_they_are_few(fleet: Fleet, make_machine: MakeMachine, tmp_path: Path) -> None:
    tree = tmp_path / "mixed"
    tree.mkdir()
    (tree / "dense").write_bytes(os.urandom(8 * MEBIBYTE))
    (tree / "zeros").write_bytes(bytes(MEBIBYTE))
    with (tree / "begin").open("wb") as file:
        file.truncate(200_000)
        file.seek(100_000)
        file.write(b"data in the middle")
    with (tree / "#small; all").open("wb") as file:
        file.truncate(12_288)
    os.link(tree / "begin", tree / "same")
    for name in ("begin", "#small; all"):
        os.utime(tree / name, ns=(1_500_000_000_123_456_789, 1_500_000_000_123_456_789))
    machine = make_machine({"images": {"path": str(tree)}})
    machine.ping()
    target = tmp_path / "restored"
    for _run in ("into a new directory", "over what is there"):
        restore(machine, "--yes", "--to", target)
        assert trees.differences(tree, target) == []
        for name in ("begin", "#small; all"):
            assert (target / name).stat().st_blocks == (tree / name).stat().st_blocks
        assert not holes.has_holes((target / "zeros").stat())
        (target / "#small; all").write_text("changed")
    log = fleet.storage_of(machine).log_file.read_text().splitlines()
    assert len([line for line in log if machine.uuid in line and "makes the holes of 3 files" in line]) == 2


def test_a_file_that_does_not_fit_with_its_holes_is_refused_before_anything_is_sent(
    make_machine: MakeMachine, tmp_path: Path, small: Path
) -> None:
    tree = tmp_path / "large"
    tree.mkdir()
    (tree / "dense").write_bytes(bytes(range(256)) * (65 * MEBIBYTE // 256))
    os.truncate(tree / "dense", LENGTH)
    machine = make_machine({"images": {"path": str(tree)}})
    machine.ping()
    said = restore(machine, "--to", small / "all", code=4)
    assert "the restore needs 65.0 MiB" in said


def test_a_drill_restores_a_sparse_file_longer_than_what_is_free(
    fleet: Fleet, machine: PrivateMachine, small: Path
) -> None:
    storage = fleet.storage_of(machine)
    file = storage.config_dir / "config.d" / "zz-drill.json"
    file.write_text(f'{{"drill_directory": "{small}/drills", "drill_paths": {{"images": ["disk", "same"]}}}}')
    try:
        completed = command.run(
            [
                programs.DIRECTORY / "turku-storage",
                "drill",
                "--config-dir",
                storage.config_dir,
                "--machine",
                machine.uuid,
            ],
            timeout_seconds=120,
            check=False,
        )
    finally:
        file.unlink()
    printed = "\n".join((completed.stdout.decode(), *completed.last_lines))
    assert completed.exit_code == 0, printed
    assert "bytes free" not in printed
