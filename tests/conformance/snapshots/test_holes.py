"""Holes are kept where the machine has them, and rsync is asked for them there alone, as far as the machine names them."""

import os
from pathlib import Path

import pytest
from tests.support.backed_up_machine import BackedUpMachine

from turku.storage.backup.job import BackupReport
from turku.storage.disk import snapshot_notes
from turku.storage.snapshots import SnapshotMode

MIB = 1024 * 1024
HOLES = frozenset({b"disk", b"sub/disk"})


@pytest.fixture
def source(machine: BackedUpMachine) -> Path:
    """A source with files with holes, one of zeros that are written, and some others."""
    for name in ("disk", "sub/disk"):
        path = machine.source_dir / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(os.urandom(MIB))
        os.truncate(path, 8 * MIB)
    os.link(machine.source_dir / "disk", machine.source_dir / "sub/second name")
    (machine.source_dir / "zeros").write_bytes(bytes(4 * MIB))
    (machine.source_dir / "other").write_bytes(b"other")
    return machine.source_dir


def room(machine: BackedUpMachine, name: str) -> int:
    os.sync()
    return (machine.newest_tree() / name).stat().st_blocks * 512


def backed_up(machine: BackedUpMachine) -> BackupReport:
    outcome = machine.back_up()
    assert outcome.success, outcome.summary
    assert machine.differences(machine.newest_tree()) == []
    return outcome


def test_named_files_have_their_holes_and_others_none(
    machine: BackedUpMachine, source: Path, mode: type[SnapshotMode]
) -> None:
    machine.with_holes = HOLES | {b"sub/second name"}
    backed_up(machine)
    assert MIB <= room(machine, "disk") < 2 * MIB
    assert MIB <= room(machine, "sub/disk") < 2 * MIB
    # It is kept as it is, so rsync was not asked for holes. Without history there is one run for all.
    assert room(machine, "zeros") >= (4 * MIB if mode.keeps_history else 0)
    names = [(machine.newest_tree() / name).stat().st_ino for name in ("disk", "sub/second name")]
    assert len(set(names)) == 1


def test_without_word_from_the_machine_all_zeros_are_holes(machine: BackedUpMachine, source: Path) -> None:
    backed_up(machine)
    assert MIB <= room(machine, "disk") < 2 * MIB
    assert room(machine, "zeros") < MIB


def test_a_machine_that_names_what_is_not_there_loses_nothing(machine: BackedUpMachine, source: Path) -> None:
    machine.with_holes = HOLES | {b"gone", b"sub", b"other/file"}
    backed_up(machine)
    assert MIB <= room(machine, "disk") < 2 * MIB


def test_changed_files_have_their_holes(machine: BackedUpMachine, source: Path, mode: type[SnapshotMode]) -> None:
    machine.with_holes = HOLES | {b"sub/second name"}
    backed_up(machine)
    with (source / "disk").open("r+b") as file:
        file.write(b"changed")
    (source / "new disk").touch()
    os.truncate(source / "new disk", 100 * MIB)
    (source / "other").write_bytes(b"changed")
    (source / "new zeros").write_bytes(bytes(4 * MIB))
    (source / "sub/disk").unlink()
    machine.with_holes = frozenset({b"disk", b"new disk", b"sub/second name"})
    outcome = backed_up(machine)
    assert outcome.strategy in ("incremental", "in-place"), outcome.strategy_reason
    assert MIB <= room(machine, "disk") < 2 * MIB
    assert room(machine, "new disk") < MIB
    assert room(machine, "new zeros") >= (4 * MIB if mode.keeps_history else 0)
    # The next one finds nothing to do.
    outcome = backed_up(machine)
    assert outcome.strategy in ("unchanged", "in-place")
    assert "Number of regular files transferred: 0" in outcome.summary


def test_zeros_that_come_into_a_file_become_a_hole(machine: BackedUpMachine, source: Path) -> None:
    (source / "disk").write_bytes(os.urandom(8 * MIB))
    backed_up(machine)
    (source / "disk").write_bytes(os.urandom(MIB))
    os.truncate(source / "disk", 16 * MIB)
    moment = (source / "disk").stat().st_mtime_ns
    for with_holes in (None, HOLES):
        machine.with_holes = with_holes
        backed_up(machine)
        assert MIB <= room(machine, "disk") < 2 * MIB
        assert (machine.newest_tree() / "disk").stat().st_mtime_ns == moment


def test_stats_count_all_runs(machine: BackedUpMachine, source: Path, mode: type[SnapshotMode]) -> None:
    machine.with_holes = HOLES
    outcome = backed_up(machine)
    figures = dict(line.split(": ", 1) for line in outcome.summary.splitlines() if ": " in line)
    assert "reg: 5" in figures["Number of created files"]
    assert figures["Number of regular files transferred"] in ("4", "5")
    assert int(figures["Literal data"].split()[0]) >= 20 * MIB
    if mode.keeps_history:
        found = snapshot_notes.read(machine.place, machine.snapshots()[-1]).stats
        assert found is not None
        assert (found.files, found.created, found.files_before) == (5, 5, 0)
