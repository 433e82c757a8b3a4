"""The history that every mode with history makes, and the changes that no mode makes to it."""

import os
from pathlib import Path

import pytest
from tests.support import rsync_programs
from tests.support.backed_up_machine import FAILING_RSYNC, BackedUpMachine, fingerprint
from tests.support.rich_tree import make_rich_tree

from turku.core.configuration.declaration import with_values
from turku.storage.fs import disk_usage
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
    # A run that breaks off leaves a tree with links into the snapshot. Then the attributes change.
    for _ in range(breaks):
        assert not machine.with_rsync(*FAILING_RSYNC).back_up(preserve_hard_links=hard_links).success
    change_attributes_only(machine.source_dir)
    assert machine.back_up(preserve_hard_links=hard_links).success
    assert fingerprint(snapshot) == before
    assert machine.differences(machine.newest_tree(), *([] if hard_links else ["--no-H"])) == []
    assert machine.newest_tree() != snapshot


def test_switching_the_mode_leaves_the_history_as_it_is(machine: BackedUpMachine, possible_modes: list[str]) -> None:
    make_rich_tree(machine.source_dir)
    assert machine.back_up().success
    # What it leaves has links into the snapshot, and is what a mode without history would sync in place.
    assert not machine.with_rsync(*FAILING_RSYNC).back_up().success
    before = {name: fingerprint(machine.place.snapshot(name)) for name in machine.snapshots()}
    for snapshot_mode in [*reversed(possible_modes), *possible_modes]:
        change_attributes_only(machine.source_dir)
        (machine.source_dir / "file").chmod(0o640)
        assert machine.back_up(snapshot_mode=snapshot_mode).success
        trees = [machine.place.snapshot(machine.snapshots()[-1]), machine.place.working_tree]
        assert [] in [machine.differences(tree, "--no-H") for tree in trees if tree.exists()]
        for name, found in before.items():
            assert fingerprint(machine.place.snapshot(name)) == found


def test_unchanged_files_take_no_space_of_their_own(machine: BackedUpMachine) -> None:
    (machine.source_dir / "large").write_bytes(os.urandom(2_000_000))
    for _ in range(4):
        assert machine.back_up(preserve_hard_links=True).success
    os.sync()
    assert 2_000_000 <= disk_usage.measured_bytes(machine.machine_dir) < 2_500_000


@pytest.mark.parametrize("with_holes", [None, frozenset(), frozenset({b"database"})], ids=["unknown", "none", "some"])
def test_a_file_that_changes_a_little_takes_a_little_space_where_blocks_are_shared(
    machine: BackedUpMachine, mode: type[SnapshotMode], with_holes: frozenset[bytes] | None
) -> None:
    if not mode.shares_blocks:
        pytest.skip("this mode keeps a changed file whole")
    machine.with_holes = with_holes
    # Zeros at the end of a page, as databases have them, are no reason to write it again.
    content = bytearray(b"".join(_page() for _ in range(2000)))
    (machine.source_dir / "database").write_bytes(content)
    states = []
    for day in range(4):
        # One page of each hundred, and one at the end.
        for page in range(day, len(content) // 4096, 100):
            content[page * 4096 : page * 4096 + 4096] = _page()
        content += _page()
        (machine.source_dir / "database").write_bytes(content)
        assert machine.back_up().success
        states.append(bytes(content))
    os.sync()
    assert disk_usage.measured_bytes(machine.machine_dir) < 8_600_000
    assert [(machine.place.snapshot(name) / "database").read_bytes() for name in machine.snapshots()] == states


def _page() -> bytes:
    return os.urandom(4000) + bytes(96)


def test_names_that_shared_a_file_and_no_longer_do_have_the_content_of_each(machine: BackedUpMachine) -> None:
    source = machine.source_dir
    (source / "one").write_bytes(b"a" * 100_000)
    os.link(source / "one", source / "two")
    assert machine.back_up(preserve_hard_links=True).success
    before = fingerprint(machine.newest_tree())
    # Another file of the same size and time, which a quick look takes for the same.
    moment = (source / "one").stat().st_mtime_ns
    (source / "two").unlink()
    (source / "two").write_bytes(b"a" * 50_000 + b"b" * 50_000)
    (source / "one").write_bytes(b"c" * 100_000)
    os.utime(source / "two", ns=(moment + 1, moment + 1))
    assert not machine.with_rsync(*FAILING_RSYNC).back_up(preserve_hard_links=True).success
    assert machine.back_up(preserve_hard_links=True).success
    assert machine.differences(machine.newest_tree()) == []
    assert fingerprint(machine.place.snapshot(machine.snapshots()[0])) == before


def test_files_that_a_failed_run_transferred_are_not_sent_again(machine: BackedUpMachine) -> None:
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
    assert not machine.place.record_path(second).exists()


def test_malformed_retention_deletes_nothing_and_is_no_failure(
    machine: BackedUpMachine, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        assert machine.back_up().success
    assert machine.back_up(retention="last one snapshot").success
    assert len(machine.snapshots()) == 3
    assert "No snapshot is removed" in caplog.text


def test_history_that_an_existing_storage_made_goes_on(machine: BackedUpMachine) -> None:
    make_rich_tree(machine.source_dir)
    assert machine.back_up(snapshot_mode="link-dest").success
    made = machine.place.snapshot(machine.snapshots()[0])
    # As the existing system named them, without a record after a crash, and with its own left-over working tree.
    iso = made.rename(machine.place.snapshot("2015-02-20T03:20:36.123456"))
    machine.place.record_path(made.name).unlink()
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
    assert machine.differences(machine.newest_tree(), "--no-H") == []
    assert "Literal data: 0 bytes" in outcome.summary


def test_a_receiver_that_was_taken_over_does_not_reach_history_where_it_needs_no_links(
    machine: BackedUpMachine, mode: type[SnapshotMode]
) -> None:
    if not mode.shares_blocks:
        pytest.skip("rsync makes hard links into snapshots")
    make_rich_tree(machine.source_dir)
    assert machine.back_up().success
    before = fingerprint(machine.newest_tree())
    script = 'for each in etc.snapshots/etc_*; do echo evil > "$each/file"; rm -rf "$each"; done; exec "$0" "$@"'
    machine.storage = with_values(
        machine.storage, sandbox="required", rsync_command=("sh", "-c", script, rsync_programs.chosen.storage)
    )
    outcome = machine.back_up()
    assert outcome.success, outcome.summary
    assert len(machine.snapshots()) == 2
    assert fingerprint(machine.place.snapshot(machine.snapshots()[0])) == before
    assert machine.differences(machine.newest_tree(), "--no-H") == []
