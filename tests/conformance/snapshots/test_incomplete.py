"""A file that cannot be read costs itself, and not the snapshot: it is named, and has its last good content."""

import os
import shutil
from pathlib import Path

import pytest
from tests.support.attribute_tree import different_facts, facts
from tests.support.backed_up_machine import BackedUpMachine, fingerprint

from turku.storage.disk import snapshot_notes
from turku.storage.snapshots import SnapshotMode

WITHOUT_READING = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
"""Root that reads only what it may as the owner."""


@pytest.fixture(autouse=True)
def bound_by_modes(machine: BackedUpMachine) -> None:
    """The machine's daemon reads only what modes let it."""
    if os.geteuid() == 0:
        machine.daemon.__exit__(None, None, None)
        machine.daemon.wrapper = WITHOUT_READING
        machine.daemon.__enter__()


@pytest.fixture
def tree(machine: BackedUpMachine) -> Path:
    """A source with a few files and directories, and a first snapshot that has all of them."""
    source = machine.source_dir
    for name in ("file", "other", "directory/one", "directory/two", "directory/deep/three", "gone", "kept/inner"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(f"first of {name}")
    assert machine.back_up().success
    return source


def change_and_close(path: Path) -> None:
    path.write_text("second, which nobody can read")
    path.chmod(0)


def newest(machine: BackedUpMachine) -> Path:
    return machine.newest_tree().resolve()


def noted(machine: BackedUpMachine) -> snapshot_notes.Notes:
    return snapshot_notes.read(machine.place, machine.snapshots()[-1])


def test_a_new_file_that_cannot_be_read_is_missing_and_all_else_is_there(
    machine: BackedUpMachine, tree: Path, mode: type[SnapshotMode]
) -> None:
    change_and_close(tree / "secret")
    (tree / "directory" / "new").write_text("new")
    (tree / "gone").unlink()
    outcome = machine.back_up()
    assert outcome.success, outcome.summary
    assert outcome.strategy == ("incremental" if mode.name == "link-dest" else "in-place"), outcome.strategy_reason
    assert (outcome.missing_files, outcome.stale_files) == (1, 0)
    assert "secret: unreadable file: Permission denied; it is not in the snapshot" in outcome.summary
    assert outcome.summary.startswith("INCOMPLETE: 1 file could not be read")
    assert (newest(machine) / "directory" / "new").read_text() == "new"
    assert not os.path.lexists(newest(machine) / "secret")
    assert not os.path.lexists(newest(machine) / "gone")
    if mode.keeps_history:
        assert [(each.path, each.last_good) for each in noted(machine).incomplete.entries] == [("secret", "")]


def test_a_first_backup_is_kept_without_what_cannot_be_read(machine: BackedUpMachine, mode: type[SnapshotMode]) -> None:
    (machine.source_dir / "file").write_text("file")
    change_and_close(machine.source_dir / "secret")
    (machine.source_dir / "closed").mkdir()
    (machine.source_dir / "closed" / "inside").write_text("inside")
    (machine.source_dir / "closed").chmod(0)
    try:
        outcome = machine.back_up()
    finally:
        (machine.source_dir / "closed").chmod(0o700)
    assert outcome.success, outcome.summary
    assert (outcome.missing_files, outcome.stale_files) == (2, 0)
    assert sorted(path.name for path in newest(machine).iterdir()) == ["closed", "file"]
    assert outcome.findings == ()


def test_a_file_that_cannot_be_read_any_more_keeps_its_last_good_content(
    machine: BackedUpMachine, tree: Path, mode: type[SnapshotMode]
) -> None:
    first = machine.clock.moment
    change_and_close(tree / "file")
    (tree / "other").write_text("second of other")
    (tree / "gone").unlink()
    for _ in range(3):
        outcome = machine.back_up(retention="last 1 snapshots")
        assert outcome.success, outcome.summary
        assert (outcome.missing_files, outcome.stale_files) == (0, 1)
        assert (newest(machine) / "file").read_text() == "first of file"
        assert (newest(machine) / "other").read_text() == "second of other"
        assert not (newest(machine) / "gone").exists()
        (tree / "directory" / "another").write_text(f"{machine.clock.moment}")
    if mode.keeps_history:
        [entry] = noted(machine).incomplete.entries
        assert (entry.path, entry.is_stale, entry.last_good) == ("file", True, first.isoformat(timespec="seconds"))
        assert f"as of {entry.last_good}" in outcome.summary
    (tree / "file").chmod(0o600)
    outcome = machine.back_up()
    assert (outcome.success, outcome.missing_files, outcome.stale_files) == (True, 0, 0)
    assert (newest(machine) / "file").read_text() == "second, which nobody can read"
    assert machine.differences(newest(machine)) == []


def test_a_file_that_was_unreadable_before_makes_no_new_tree_alone(
    machine: BackedUpMachine, tree: Path, mode: type[SnapshotMode]
) -> None:
    change_and_close(tree / "secret")
    for _ in range(3):
        outcome = machine.back_up()
        assert (outcome.success, outcome.missing_files) == (True, 1)
    if mode.name == "link-dest":
        assert outcome.strategy == "unchanged"
        assert machine.place.link_target(machine.snapshots()[-1]) is not None


def test_a_directory_that_cannot_be_read_any_more_keeps_all_that_was_in_it_and_is_kept_apart(
    machine: BackedUpMachine, tree: Path, mode: type[SnapshotMode]
) -> None:
    kept = facts(newest(machine) / "directory")
    first = machine.place.snapshot(machine.snapshots()[0]) if mode.keeps_history else None
    before = fingerprint(first) if first else None
    (tree / "directory").chmod(0)
    (tree / "gone").unlink()
    shutil.rmtree(tree / "kept")
    (tree / "other").write_text("second of other")
    try:
        outcome = machine.back_up()
        again = machine.back_up()
    finally:
        (tree / "directory").chmod(0o755)
    assert outcome.success, outcome.summary
    assert again.success, again.summary
    assert outcome.stale_files == again.stale_files == 3, outcome.summary
    assert not (newest(machine) / "gone").exists()
    assert not (newest(machine) / "kept").exists()
    found = facts(newest(machine) / "directory")
    assert [line for line in different_facts(kept, found) if not line.startswith("'.': mode")] == []
    if mode.keeps_history:
        assert outcome.findings == ("nothing in directory can be read any more, it had 3 files",)
        assert noted(machine).needs_review
    if first:
        assert fingerprint(first) == before


def test_a_full_run_keeps_what_it_cannot_read_too(
    machine: BackedUpMachine, tree: Path, mode: type[SnapshotMode], monkeypatch: pytest.MonkeyPatch
) -> None:
    from turku.storage.backup import dry_run
    from turku.storage.backup.dry_run import DryRunResult

    monkeypatch.setattr(
        dry_run, "compare_with_base", lambda *_arguments: DryRunResult(unusable_reason="as this test will have it")
    )
    change_and_close(tree / "file")
    (tree / "directory").chmod(0)
    (tree / "gone").unlink()
    try:
        outcome = machine.back_up()
    finally:
        (tree / "directory").chmod(0o755)
    assert outcome.success, outcome.summary
    assert outcome.strategy == ("full" if mode.name == "link-dest" else "in-place")
    assert outcome.stale_files == 4, outcome.summary
    assert (newest(machine) / "file").read_text() == "first of file"
    assert (newest(machine) / "directory" / "deep" / "three").read_text() == "first of directory/deep/three"
    assert not (newest(machine) / "gone").exists()


def test_a_source_may_ask_to_fail_instead(machine: BackedUpMachine, tree: Path, mode: type[SnapshotMode]) -> None:
    change_and_close(tree / "file")
    (tree / "directory" / "new").write_text("new")
    before = machine.snapshots() if mode.keeps_history else []
    outcome = machine.back_up(incomplete="fail")
    assert not outcome.success
    assert "exit code 23" in outcome.summary
    assert (machine.snapshots() if mode.keeps_history else []) == before


def test_a_storage_that_cannot_write_makes_no_incomplete_snapshot(machine: BackedUpMachine, tree: Path) -> None:
    (tree / "new").write_text("new")
    full = 'rsync: [receiver] mkstemp "/tree/.new.Ab3dE9" failed: No space left on device (28)'
    outcome = machine.with_rsync("sh", "-c", f"'true' \"$0\" \"$@\"; echo '{full}' >&2; exit 23", "rsync").back_up()
    assert not outcome.success


def test_many_unreadable_files_are_counted_and_some_of_them_named(machine: BackedUpMachine, tree: Path) -> None:
    for number in range(300):
        change_and_close(tree / "directory" / f"secret{number}")
    outcome = machine.back_up()
    assert outcome.success, outcome.summary
    assert outcome.missing_files == 300
    assert outcome.warning_count >= 20
    assert len(outcome.summary) < 20_000
