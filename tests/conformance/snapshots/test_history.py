"""What every mode that keeps history does with it, and what no mode does to it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.support.backed_up_machine import FAILING_RSYNC, BackedUpMachine, fingerprint
from tests.support.rich_tree import make_rich_tree

from turku.storage.snapshots import MODES, SnapshotMode


@pytest.fixture(params=sorted(name for name, mode in MODES.items() if mode.keeps_history))
def mode(request: pytest.FixtureRequest) -> type[SnapshotMode]:
    return MODES[request.param]


def change_attributes_only(source: Path) -> None:
    """Another mode, time, owner for files, directories and links whose content stays the same."""
    (source / "file").chmod(0o600)
    os.utime(source / "large", (5, 5))
    os.utime(source / "link", (6, 6), follow_symlinks=False)
    (source / "directory" / "deep").chmod(0o711)
    os.utime(source / "sticky", (7, 7))
    if os.geteuid() == 0:
        os.chown(source / "empty", 4711, 4712)
        os.chown(source / "dangling", 4711, 4712, follow_symlinks=False)
        os.chown(source / "directory", 4711, 4712)
        os.chown(source / "pipe", 4711, 4712)


@pytest.mark.parametrize("hard_links", [False, True])
@pytest.mark.parametrize("breaks", [0, 2])
def test_no_snapshot_is_changed_by_a_later_run_that_sees_other_attributes(
    machine: BackedUpMachine, *, hard_links: bool, breaks: int
) -> None:
    make_rich_tree(machine.source_dir)
    assert machine.back_up(preserve_hard_links=hard_links).success
    snapshot = machine.newest_tree()
    before = fingerprint(snapshot)
    # A run that breaks off leaves a tree with links into the snapshot; then the attributes change.
    for _ in range(breaks):
        assert not machine.with_rsync(*FAILING_RSYNC).back_up(preserve_hard_links=hard_links).success
    change_attributes_only(machine.source_dir)
    assert machine.back_up(preserve_hard_links=hard_links).success
    assert fingerprint(snapshot) == before
    assert machine.differences(machine.newest_tree(), *([] if hard_links else ["--no-H"])) == []
    assert machine.newest_tree() != snapshot


def test_switching_the_mode_leaves_the_history_as_it_is(machine: BackedUpMachine) -> None:
    make_rich_tree(machine.source_dir)
    assert machine.back_up().success
    # What it leaves has links into the snapshot, and is what a mode without history would sync in place.
    assert not machine.with_rsync(*FAILING_RSYNC).back_up().success
    before = {name: fingerprint(machine.place.snapshot(name)) for name in machine.snapshots()}
    for snapshot_mode in [*sorted(MODES, reverse=True), *sorted(MODES)]:
        change_attributes_only(machine.source_dir)
        (machine.source_dir / "file").chmod(0o640)
        assert machine.back_up(snapshot_mode=snapshot_mode).success
        for name, found in before.items():
            assert fingerprint(machine.place.snapshot(name)) == found


def test_unchanged_files_take_no_space_of_their_own(machine: BackedUpMachine) -> None:
    make_rich_tree(machine.source_dir)
    for _ in range(2):
        assert machine.back_up(preserve_hard_links=True).success
    first, second = (machine.place.snapshot(name) for name in machine.snapshots())
    assert (first / "large").stat().st_ino == (second / "large").stat().st_ino


def test_what_a_failed_run_brought_over_is_not_sent_again(machine: BackedUpMachine) -> None:
    make_rich_tree(machine.source_dir)
    (machine.source_dir / "late").write_bytes(b"x" * 10)
    for _ in range(3):
        assert not machine.with_rsync(*FAILING_RSYNC).back_up().success
    assert machine.snapshots() == []
    outcome = machine.back_up()
    assert outcome.success
    assert "Literal data: 10 bytes" in outcome.summary
    assert machine.differences(machine.newest_tree(), "--no-H") == []


def test_retention_removes_what_no_rule_keeps_but_never_what_is_held(machine: BackedUpMachine) -> None:
    make_rich_tree(machine.source_dir)
    for _ in range(3):
        assert machine.back_up().success
    held = f"{machine.snapshots()[0]}-save"
    machine.place.snapshot(machine.snapshots()[0]).rename(machine.place.snapshot(held))
    second, third = machine.snapshots()[-2:]
    outcome = machine.back_up(retention="last 2 snapshots")
    assert set(machine.snapshots()) == {held, third, outcome.snapshot}
    assert not machine.place.information(second).exists()


def test_malformed_retention_deletes_nothing_and_is_no_failure(
    machine: BackedUpMachine, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        assert machine.back_up().success
    assert machine.back_up(retention="last one snapshot").success
    assert len(machine.snapshots()) == 3
    assert "no snapshot is deleted" in caplog.text


def test_history_that_an_existing_storage_made_goes_on(machine: BackedUpMachine) -> None:
    make_rich_tree(machine.source_dir)
    assert machine.back_up().success
    made = machine.place.snapshot(machine.snapshots()[0])
    # As the existing system named them, without a record after a crash, and with its own left-over working tree.
    iso = made.rename(machine.place.snapshot("2015-02-20T03:20:36.123456"))
    machine.place.information(made.name).unlink()
    machine.place.latest.unlink()
    machine.place.latest.symlink_to(iso.name)
    machine.place.snapshot("1424400000").mkdir()
    machine.place.working_tree.mkdir()
    os.link(iso / "large", machine.place.working_tree / "large", follow_symlinks=False)
    before = fingerprint(iso)
    change_attributes_only(machine.source_dir)
    outcome = machine.back_up()
    assert outcome.success
    assert machine.snapshots() == ["1424400000", iso.name, outcome.snapshot]
    assert fingerprint(iso) == before
    assert (iso / "setuid").stat().st_ino == (machine.newest_tree() / "setuid").stat().st_ino
