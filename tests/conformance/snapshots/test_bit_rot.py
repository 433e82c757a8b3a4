"""Flipped bits in the trees of every mode that keeps history: found, named, repaired. Shared files are read once."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support.backed_up_machine import BackedUpMachine, fingerprint
from tests.support.trees import flip_bit

from turku.storage.fs import subvolume
from turku.storage.fs.stored_content import RateLimiter
from turku.storage.integrity import damage, scrub
from turku.storage.integrity.scrub import ScrubResult, ScrubShare
from turku.storage.snapshots import SnapshotMode


@contextmanager
def opened(tree: Path) -> Iterator[None]:
    """A sealed snapshot that a disk writes to all the same."""
    is_sealed = subvolume.is_subvolume(tree)
    if is_sealed:
        subvolume.set_read_only(tree, read_only=False)
    yield
    if is_sealed:
        subvolume.set_read_only(tree, read_only=True)


def flip(tree: Path, name: str) -> None:
    with opened(tree):
        flip_bit(tree / name, 70_000, 8)
    os.sync()


def verify(machine: BackedUpMachine) -> ScrubResult:
    made = scrub.verify(machine.place, zone=machine.storage.state.timezone, share=ScrubShare(), pace=RateLimiter())
    damage.write(machine.place, made.open_damages)
    return made


def trees(machine: BackedUpMachine) -> dict[str, Path]:
    return {name: machine.place.tree(name) for name in machine.snapshots()}


@pytest.fixture
def backed_up(machine: BackedUpMachine, mode: type[SnapshotMode]) -> BackedUpMachine:
    if not mode.keeps_history:
        pytest.skip("keeps no history")
    (machine.source_dir / "d").mkdir()
    (machine.source_dir / "d" / "shared").write_bytes(os.urandom(300_000))
    (machine.source_dir / "d").chmod(0o500)
    machine.days(3)
    os.sync()
    return machine


def test_a_file_that_snapshots_share_is_read_once(backed_up: BackedUpMachine) -> None:
    made = verify(backed_up)
    assert made.damages == []
    assert made.size_bytes < 2 * 300_000


def test_damage_is_named_and_repaired(backed_up: BackedUpMachine, mode: type[SnapshotMode]) -> None:
    before = {name: fingerprint(tree) for name, tree in trees(backed_up).items()}
    middle = backed_up.snapshots()[1]
    # Beside the hard links of one mode: a copy of the content that is another file.
    (backed_up.source_dir / "copy").write_bytes((backed_up.source_dir / "d" / "shared").read_bytes())
    backed_up.days(1)
    flip(trees(backed_up)[middle], "d/shared")
    made = verify(backed_up)
    [found] = made.damages
    assert (found.path, found.kind, found.state) == ("d/shared", "content", "repaired")
    assert middle in found.snapshots
    assert (len(found.snapshots) > 1) == (not mode.shares_blocks)
    now = {name: fingerprint(tree) for name, tree in trees(backed_up).items()}
    assert before.items() <= now.items()
    assert all(subvolume.is_subvolume(tree) == (mode.name == "btrfs") for tree in trees(backed_up).values())
    if mode.name == "btrfs":
        with pytest.raises(OSError, match="Read-only"):
            (trees(backed_up)[middle] / "new").touch()
    assert verify(backed_up).damages == []


def test_other_attributes_are_named_and_repaired(backed_up: BackedUpMachine) -> None:
    assert verify(backed_up).damages == []
    *_former, name = backed_up.snapshots()
    tree = backed_up.place.tree(name)
    before = {each: fingerprint(path) for each, path in trees(backed_up).items()}
    statuses = [(path / "d" / "shared").stat() for path in trees(backed_up).values()]
    is_alone = len({(status.st_dev, status.st_ino) for status in statuses}) > 1
    file = tree / "d" / "shared"
    with opened(tree):
        os.setxattr(file, "user.comment", b"nobody's")
    [found] = verify(backed_up).damages
    assert (found.path, found.kind) == ("d/shared", "attributes")
    if is_alone:
        assert (found.state, found.snapshots) == ("repaired", (name,))
        assert {each: fingerprint(path) for each, path in trees(backed_up).items()} == before
        assert verify(backed_up).damages == []
    else:
        # One file in all snapshots.
        assert (found.state, len(found.snapshots)) == ("next_backup", 3)


def test_the_next_backup_transfers_a_file_that_no_copy_has(
    backed_up: BackedUpMachine, mode: type[SnapshotMode]
) -> None:
    for tree in trees(backed_up).values() if mode.shares_blocks else list(trees(backed_up).values())[:1]:
        flip(tree, "d/shared")
    [found] = verify(backed_up).damages
    assert (found.state, len(found.snapshots)) == ("next_backup", 3)
    assert backed_up.back_up().success
    assert backed_up.differences(backed_up.newest_tree()) == []
    [repaired] = verify(backed_up).damages
    assert repaired.state == "repaired"
    contents = {(tree / "d" / "shared").read_bytes() for tree in trees(backed_up).values()}
    assert contents == {(backed_up.source_dir / "d" / "shared").read_bytes()}
