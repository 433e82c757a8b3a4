"""In every mode the catalog tells of each snapshot what is in its tree, with the checksums of real transfers."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.backed_up_machine import FAILING_RSYNC, BackedUpMachine
from tests.support.catalog_oracle import assert_agrees, change, make_tree
from tests.support.random_history import NAMES

from turku.storage import catalog
from turku.storage.catalog import database, streaming
from turku.storage.catalog.staging import Staging
from turku.storage.snapshots import SnapshotMode


@pytest.fixture(autouse=True)
def as_the_trees_are(machine: BackedUpMachine) -> None:
    if machine.fake_super:
        pytest.skip("attributes say something else than the trees: tests/integration/storage/test_catalog.py has that")


def require_history(mode: type[SnapshotMode]) -> None:
    if not mode.keeps_history:
        pytest.skip("has no snapshots")


def test_entries_and_checksums_are_those_of_the_trees(machine: BackedUpMachine, mode: type[SnapshotMode]) -> None:
    make_tree(machine.source_dir)
    for number in range(5):
        change(machine.source_dir, number)
        outcome = machine.back_up(retention="last 3 snapshots")
        assert outcome.success, outcome.summary
        if mode.keeps_history:
            assert_agrees(machine)
    assert database.file_of(machine.place).exists() is mode.keeps_history


def test_a_first_backup_is_written_down_while_it_comes(
    machine: BackedUpMachine, mode: type[SnapshotMode], monkeypatch: pytest.MonkeyPatch
) -> None:
    require_history(mode)
    make_tree(machine.source_dir)
    for number in range(4):
        change(machine.source_dir, number)
    # A file is looked at while the next ones come, and not again in the end.
    monkeypatch.setattr(streaming, "ROWS_AT_ONCE", 2)
    read: list[str] = []
    monkeypatch.setattr(Staging, "scan", lambda *_arguments, **_options: read.append("the tree was read"))
    assert machine.back_up().success
    assert read == []
    assert_agrees(machine)
    monkeypatch.undo()
    change(machine.source_dir, 4)
    assert machine.back_up().success
    assert_agrees(machine)


@pytest.mark.parametrize("trouble", ["hard links", "goes on", "cannot be read"])
def test_a_first_backup_that_is_not_reported_whole_is_read_in_the_end(
    machine: BackedUpMachine, mode: type[SnapshotMode], trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_history(mode)
    make_tree(machine.source_dir)
    change(machine.source_dir, 0)
    if trouble == "goes on":
        (machine.source_dir / "late").write_text("comes with the next run")
        assert not machine.with_rsync(*FAILING_RSYNC).back_up().success
        assert database.file_of(machine.place).exists()
    if trouble == "cannot be read":
        monkeypatch.setattr(streaming, "ROWS_AT_ONCE", 2)

        def fail(*_arguments: object) -> None:
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(Staging, "add", fail)
    assert machine.back_up(preserve_hard_links=trouble == "hard links").success
    assert_agrees(machine, with_checksums=trouble != "goes on")


def test_an_unchanged_backup_adds_no_row_of_a_version(machine: BackedUpMachine, mode: type[SnapshotMode]) -> None:
    require_history(mode)
    make_tree(machine.source_dir)
    counts = []
    for _ in range(4):
        assert machine.back_up().success
        with catalog.open_catalog(machine.place, zone=machine.storage.state.timezone) as opened:
            counts.append(opened.connection.execute("SELECT count(*) FROM versions").fetchone()[0])
    assert counts[0] == counts[-1] > len(NAMES)
    assert_agrees(machine)


def test_files_of_a_failed_run_get_no_wrong_checksum_and_the_rest_keeps_its_own(
    machine: BackedUpMachine, mode: type[SnapshotMode]
) -> None:
    require_history(mode)
    make_tree(machine.source_dir)
    assert machine.back_up().success
    change(machine.source_dir, 1)
    assert not machine.with_rsync(*FAILING_RSYNC).back_up().success
    assert machine.back_up().success
    assert_agrees(machine, with_checksums=False)
    first, second = machine.snapshots()
    with catalog.open_catalog(machine.place, zone=machine.storage.state.timezone) as opened:
        # What the failed run did not touch is no new version, and has its checksum still.
        entries = {entry.path: entry for entry in opened.files(second)}
    assert entries[b"new\nline"].first == first
    assert entries[b"new\nline"].checksum is not None


def test_a_catalog_made_anew_has_no_more_versions_than_the_one_that_was_lost(
    machine: BackedUpMachine, mode: type[SnapshotMode]
) -> None:
    require_history(mode)
    make_tree(machine.source_dir)
    for number in range(4):
        change(machine.source_dir, number)
        assert machine.back_up().success

    def count() -> int:
        with catalog.open_catalog(machine.place, zone=machine.storage.state.timezone) as opened:
            found: int = opened.connection.execute("SELECT count(*) FROM versions").fetchone()[0]
        return found

    before = count()
    database.file_of(machine.place).unlink()
    assert count() <= before
    assert_agrees(machine, with_checksums=False)


def test_one_changed_file_with_several_names_does_not_have_the_whole_tree_read(
    machine: BackedUpMachine, mode: type[SnapshotMode], monkeypatch: pytest.MonkeyPatch
) -> None:
    require_history(mode)
    make_tree(machine.source_dir)
    for name in ("one", "directory/two", "directory/three"):
        path = machine.source_dir / name
        path.parent.mkdir(exist_ok=True)
        if name == "one":
            path.write_text("one file")
        else:
            os.link(machine.source_dir / "one", path)
    assert machine.back_up().success
    read: list[str] = []
    monkeypatch.setattr(Staging, "_scan_all", lambda *_arguments: read.append("the tree was read"))
    changes: list[Callable[[Path], object]] = [
        lambda path: path.write_text("another content"),
        lambda path: path.chmod(0o600),
        lambda path: os.setxattr(path, "user.comment", b"a note"),
        lambda path: os.link(path, path.with_name("a further name")),
        lambda path: path.unlink(),
    ]
    for act in changes:
        act(machine.source_dir / "one")
        outcome = machine.back_up()
        assert outcome.success, outcome.summary
        assert read == []
        assert_agrees(machine, with_checksums=False)
    monkeypatch.undo()
