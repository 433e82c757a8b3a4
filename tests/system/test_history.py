"""The life of one source over four backups: first, unchanged, changed (with deleted and renamed files), by day."""

import json
import os
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest
from tests.support.fleet import Fleet
from tests.support.trees import inodes, listing, snapshot_differences
from tests.system.conftest import MakeMachine

from turku.demo.private_machine import PrivateMachine

pytestmark = pytest.mark.xdist_group("system-history")


@dataclass
class History:
    machine: PrivateMachine
    tree: Path
    first: Path
    first_files: set[str]
    unchanged: Path
    changed: Path


@pytest.fixture(scope="module")
def history(fleet: Fleet, make_machine: MakeMachine, tmp_path_factory: pytest.TempPathFactory) -> History:
    tree = tmp_path_factory.mktemp("history") / "tree"
    (tree / "sub" / "empty").mkdir(parents=True)
    for number in range(20):
        (tree / "sub" / f"{number:02}.txt").write_text(f"{number}\n" * 100)
    (tree / "link").symlink_to("sub/00.txt")
    (tree / "dangling").symlink_to("/nowhere/at all")
    os.mkfifo(tree / "pipe")
    (tree / "secret").write_text("for the owner alone\n")
    (tree / "secret").chmod(0o4640)
    (tree / os.fsdecode(b"latin-1 \xe9t\xe9")).write_text("not UTF-8\n")
    (tree / "line\nbreak").write_text("a name of two lines\n")
    os.utime(tree / "sub" / "05.txt", ns=(1_111_111_111_123_456_789, 1_111_111_111_123_456_789))
    machine = make_machine({"tree": {"path": str(tree)}})

    machine.ping()
    [first] = fleet.snapshots(machine, "tree")
    first_files = listing(first)
    assert snapshot_differences(tree, first) == []

    fleet.make_due(machine)
    machine.ping()
    unchanged = fleet.snapshots(machine, "tree")[-1]

    (tree / "sub" / "00.txt").write_text("changed\n")
    (tree / "sub" / "01.txt").chmod(0o600)
    (tree / "sub" / "02.txt").unlink()
    (tree / "sub" / "03.txt").rename(tree / "sub" / "renamed.txt")
    (tree / "new.txt").write_text("new\n")
    fleet.make_due(machine)
    machine.ping()
    changed = fleet.snapshots(machine, "tree")[-1]
    return History(machine, tree, first, first_files, unchanged, changed)


def test_the_first_backup_holds_everything_and_still_does_after_later_ones(history: History) -> None:
    assert listing(history.first) == history.first_files
    assert len(history.first_files) == 20 + 2 + 2 + 1 + 1 + 2
    assert (history.first / "sub" / "00.txt").read_text() == "0\n" * 100
    assert (history.first / "sub" / "01.txt").stat().st_mode & 0o777 != 0o600
    assert (history.first / "sub" / "02.txt").exists()


def test_an_unchanged_tree_gives_a_snapshot_of_the_same_files_stored_once(history: History) -> None:
    assert history.unchanged != history.first
    before, after = inodes(history.first), inodes(history.unchanged)
    assert len(before) >= 23
    assert after == before


def test_a_changed_tree_is_kept_as_it_is_now(history: History) -> None:
    assert snapshot_differences(history.tree, history.changed) == []


def test_changed_files_are_new_ones_and_the_others_stay_shared(history: History) -> None:
    before, after = inodes(history.unchanged), inodes(history.changed)
    touched = {"sub/00.txt", "sub/01.txt", "sub/renamed.txt", "new.txt"}
    assert {name for name, inode in after.items() if before.get(name) != inode} == touched


def test_deleted_and_renamed_files_are_gone_from_the_new_snapshot_alone(history: History) -> None:
    assert not (history.changed / "sub" / "02.txt").exists()
    assert not (history.changed / "sub" / "03.txt").exists()
    assert (history.changed / "sub" / "renamed.txt").read_text() == "3\n" * 100
    assert (history.unchanged / "sub" / "02.txt").exists()
    assert (history.unchanged / "sub" / "03.txt").exists()


def test_names_that_are_not_text_are_kept_byte_for_byte(history: History) -> None:
    names = os.listdir(os.fsencode(history.changed))
    assert b"latin-1 \xe9t\xe9" in names
    assert b"line\nbreak" in names


def test_the_layout_on_disk_is_the_contracts(fleet: Fleet, history: History) -> None:
    storage = fleet.storage_of(history.machine)
    machine_directory = storage.volume / history.machine.uuid
    snapshots = machine_directory / "tree.snapshots"
    assert history.first.resolve().parent == snapshots.resolve()
    for snapshot in (history.first, history.unchanged, history.changed):
        assert re.fullmatch(r"tree_\d{8}-\d{6}_[0-9a-f]{4}", snapshot.name)
    assert (snapshots / "latest").is_symlink()
    assert (snapshots / "latest").resolve() == history.changed.resolve()
    assert storage.machine_directory(history.machine.uuid).resolve() == machine_directory.resolve()
    by_name = storage.var_dir / "machines" / history.machine.unit_name
    assert by_name.is_symlink()
    assert by_name.resolve() == machine_directory.resolve()


def test_each_snapshot_says_what_it_is_built_on_and_when(history: History) -> None:
    notes = [
        json.loads(snapshot.with_name(f"{snapshot.name}.json").read_text())
        for snapshot in (history.first, history.unchanged, history.changed)
    ]
    assert [note["name"] for note in notes] == [history.first.name, history.unchanged.name, history.changed.name]
    assert not notes[0]["base"]
    assert [note["base"] for note in notes[1:]] == [history.first.name, history.unchanged.name]
    for note in notes:
        begin, finish = (datetime.fromisoformat(note[key]) for key in ("sync_begin", "sync_finish"))
        assert begin.tzinfo is not None
        assert begin <= finish


def test_the_coordinator_has_the_record_of_every_run(fleet: Fleet, history: History) -> None:
    runs = fleet.runs(history.machine, "tree")
    assert [run["success"] for run in runs] == [1, 1, 1]
    assert [run["snapshot"] for run in runs] == [history.first.name, history.unchanged.name, history.changed.name]
    for run in runs:
        assert run["summary"]
        assert run["date_begin"] <= run["date_end"]
