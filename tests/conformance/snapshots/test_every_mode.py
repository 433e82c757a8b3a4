"""The behaviour of every snapshot mode, with history or without."""

import json
import os
import shutil
from datetime import datetime
from pathlib import Path

import pytest
from tests.support.backed_up_machine import FAILING_RSYNC, BackedUpMachine
from tests.support.rich_tree import change_rich_tree, make_rich_tree

from turku.core.configuration.declaration import with_values
from turku.storage.snapshots import SnapshotMode

pytestmark = pytest.mark.both_rsyncs

FAKE_SUPER = [None] if os.geteuid() == 0 else [None, False]
"""Without root a storage keeps ownership in extended attributes or, where there are none, not at all."""


def hidden_names(machine: BackedUpMachine) -> list[str]:
    """Return the hidden entries beside the snapshots, without the recorded retention rules."""
    if not machine.place.snapshots_dir.exists():
        return []
    hidden = [entry.name for entry in machine.place.snapshots_dir.iterdir() if entry.name.startswith(".")]
    return [name for name in hidden if name != machine.place.retention_rules.name]


@pytest.mark.parametrize("fake_super", FAKE_SUPER)
def test_a_backup_is_identical_to_its_source(
    machine: BackedUpMachine, mode: type[SnapshotMode], fake_super: bool | None
) -> None:
    machine.storage = with_values(machine.storage, fake_super=fake_super)
    make_rich_tree(machine.source_dir)
    outcome = machine.back_up(preserve_hard_links=True)
    assert outcome.success, outcome.summary
    assert (outcome.snapshot is not None) == mode.keeps_history
    assert machine.differences(machine.newest_tree()) == []
    assert outcome.time_end >= outcome.time_begin == machine.clock.moment.timestamp()


def test_every_kind_of_change_arrives(machine: BackedUpMachine) -> None:
    source = machine.source_dir
    make_rich_tree(source)
    assert machine.back_up(preserve_hard_links=True).success
    change_rich_tree(source)
    source.chmod(0o751)
    outcome = machine.back_up(preserve_hard_links=True)
    assert outcome.success, outcome.summary
    assert machine.differences(machine.newest_tree()) == []


def test_an_empty_source_is_backed_up_too(machine: BackedUpMachine) -> None:
    assert machine.back_up().success
    assert machine.differences(machine.newest_tree()) == []


@pytest.mark.parametrize("fake_super", FAKE_SUPER)
def test_a_source_that_forbids_writing_or_reading_is_backed_up_again_and_again(
    machine: BackedUpMachine, fake_super: bool | None
) -> None:
    machine.storage = with_values(machine.storage, fake_super=fake_super)
    (machine.source_dir / "file").write_text("content")
    # Without root its own daemon could not read the last one.
    for permissions in (0o500, 0o555, *([0o000] if os.geteuid() == 0 else [])):
        machine.source_dir.chmod(permissions)
        try:
            assert machine.back_up().success
            outcome = machine.back_up(retention="last 1 snapshots")
            assert outcome.success, outcome.summary
            assert machine.differences(machine.newest_tree()) == []
        finally:
            machine.source_dir.chmod(0o700)
    assert hidden_names(machine) in ([], [".in-place"])


def test_a_failed_backup_says_why_and_the_next_one_succeeds(machine: BackedUpMachine) -> None:
    make_rich_tree(machine.source_dir)
    password = machine.daemon.password
    machine.daemon.password = "wrong"
    outcome = machine.back_up()
    assert not outcome.success
    assert outcome.snapshot is None
    assert "one-time password" in outcome.summary
    assert "wrong" not in outcome.summary.replace("wrong module", "")
    machine.daemon.password = password
    assert machine.back_up().success
    assert machine.differences(machine.newest_tree(), "--no-H") == []


def test_excluded_and_filtered_names_stay_away_and_go_when_they_were_there(machine: BackedUpMachine) -> None:
    for name in ("keep.txt", "drop.tmp", "kept/inner.tmp", "cache/a", "cache/b"):
        (machine.source_dir / name).parent.mkdir(exist_ok=True)
        (machine.source_dir / name).write_text(name)
    assert machine.back_up().success
    outcome = machine.back_up(filter=["+ /kept/*.tmp", "- /cache/"], exclude=["*.tmp"])
    assert outcome.success, outcome.summary
    tree = machine.newest_tree()
    assert sorted(str(path.relative_to(tree)) for path in tree.rglob("*")) == ["keep.txt", "kept", "kept/inner.tmp"]


def test_hard_links_are_kept_only_when_asked_for(machine: BackedUpMachine) -> None:
    (machine.source_dir / "one").write_text("content")
    os.link(machine.source_dir / "one", machine.source_dir / "two")
    for preserve in (False, True, True):
        assert machine.back_up(preserve_hard_links=preserve).success
    tree = machine.newest_tree()
    assert (tree / "one").stat().st_ino == (tree / "two").stat().st_ino


def test_nothing_hidden_is_left_after_a_success(machine: BackedUpMachine) -> None:
    make_rich_tree(machine.source_dir)
    for _ in range(3):
        assert machine.back_up(retention="last 1 snapshots").success
    assert hidden_names(machine) == []


def test_a_machine_that_closes_its_connection_early_costs_no_more_than_a_failure(machine: BackedUpMachine) -> None:
    make_rich_tree(machine.source_dir)
    assert machine.back_up(preserve_hard_links=True).success
    before = machine.newest_tree()
    (machine.source_dir / "file").chmod(0o600)
    outcome = machine.with_rsync("sh", "-c", '"$0" --exclude="l*" "$@"; exit 12', "rsync").back_up()
    assert not outcome.success
    assert "exit code 12" in outcome.summary
    assert machine.newest_tree() == before
    outcome = machine.back_up(preserve_hard_links=True)
    assert outcome.success, outcome.summary
    assert machine.differences(machine.newest_tree()) == []


def test_files_that_vanish_while_they_are_read_are_a_success(machine: BackedUpMachine) -> None:
    (machine.source_dir / "file").write_text("content")
    outcome = machine.with_rsync("sh", "-c", '"$0" "$@"; exit 24', "rsync").back_up()
    assert outcome.success
    assert "vanished" in outcome.summary
    assert machine.differences(machine.newest_tree()) == []


def test_a_tree_whose_directories_lie_deeper_than_a_path_may_be_long_in_one_call_is_kept(
    machine: BackedUpMachine, tmp_path: Path
) -> None:
    component = b"d" * 200
    depth = 19  # 19 * 201 + the file: within rsync's 4096, and beyond what a path from the root could name.
    directory = os.open(machine.source_dir, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(component, dir_fd=directory)
        inner = os.open(component, os.O_RDONLY, dir_fd=directory)
        os.close(directory)
        directory = inner
    descriptor = os.open(b"f" * 150, os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=directory)
    os.write(descriptor, b"at the bottom")
    os.close(descriptor)
    os.close(directory)
    for _ in range(2):
        outcome = machine.back_up(retention="last 1 snapshots")
        assert outcome.success, outcome.summary
    assert machine.differences(machine.newest_tree()) == []
    assert hidden_names(machine) == []
    shutil.rmtree(machine.source_dir)


def test_a_change_many_levels_down_is_no_reason_for_a_full_run(machine: BackedUpMachine) -> None:
    # More levels than directories are held open at once.
    deep = machine.source_dir.joinpath(*["d"] * 300)
    (deep / "goes").mkdir(parents=True)
    (deep / "goes" / "file").write_text("before")
    (deep / "file").write_text("before")
    assert machine.back_up().success
    (deep / "file").write_text("after it")
    (deep / "new").mkdir(mode=0o500)
    (deep / "goes" / "file").unlink()
    (deep / "goes").rmdir()
    (deep / "goes").write_text("a file now")
    outcome = machine.back_up()
    assert outcome.success, outcome.summary
    assert outcome.strategy in ("incremental", "in-place")
    assert outcome.strategy_reason == ""
    assert machine.differences(machine.newest_tree()) == []


def test_a_file_that_a_power_loss_left_without_its_content_is_not_taken_for_whole(machine: BackedUpMachine) -> None:
    for name in ("file", "late"):
        (machine.source_dir / name).write_bytes(b"content" * 1000)
    assert not machine.with_rsync(*FAILING_RSYNC).back_up().success
    # Killed by the power, it would have left its mark, of another start of the system, and files of zeros.
    (machine.machine_dir / ".etc.writing").write_text("the start before")
    for name in ("file", "late"):
        moment = (machine.source_dir / name).stat().st_mtime_ns
        left = machine.place.staging if machine.place.staging.exists() else machine.place.working_tree
        (left / name).write_bytes(bytes(7000))
        os.utime(left / name, ns=(moment, moment))
    # A run that fails again has not seen all of them.
    assert not machine.with_rsync(*FAILING_RSYNC).back_up().success
    assert machine.back_up().success
    assert machine.differences(machine.newest_tree()) == []
    assert not (machine.machine_dir / ".etc.writing").exists()


def test_the_mark_of_a_power_loss_goes_where_nothing_was_left_and_nothing_changed(machine: BackedUpMachine) -> None:
    (machine.source_dir / "file").write_text("content")
    assert machine.back_up().success
    (machine.machine_dir / ".etc.writing").write_text("the start before")
    (machine.machine_dir / "..etc.writing.turku-tmp-0123456789ab").write_text("the st")
    assert machine.back_up().success
    assert not (machine.machine_dir / "..etc.writing.turku-tmp-0123456789ab").exists()
    # Else every run from then on would compare contents, until something changes.
    assert not (machine.machine_dir / ".etc.writing").exists()
    assert machine.differences(machine.newest_tree()) == []


def test_a_second_run_of_the_same_source_is_refused_while_one_is_at_work(machine: BackedUpMachine) -> None:
    inner = f"import fcntl; fcntl.flock(open('{machine.machine_dir}/.etc.lock'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    outcome = machine.with_rsync("python3", "-c", inner).back_up()
    assert not outcome.success
    assert "BlockingIOError" in outcome.summary


def test_the_record_beside_a_snapshot_is_the_contract_s(machine: BackedUpMachine, mode: type[SnapshotMode]) -> None:
    (machine.source_dir / "file").write_text("content")
    for _ in range(2):
        assert machine.back_up().success
    if not mode.keeps_history:
        assert not machine.place.snapshots_dir.exists()
        return
    first, second = machine.snapshots()
    record = json.loads(machine.place.record_path(second).read_text())
    assert record.keys() >= {"name", "base", "sync_begin", "sync_finish"}
    assert (record["name"], record["base"]) == (second, first)
    assert datetime.fromisoformat(record["sync_begin"]) == machine.clock.moment
    assert datetime.fromisoformat(record["sync_finish"]).tzinfo is not None
    assert os.readlink(machine.place.latest) == second
    assert not machine.place.working_tree.exists()
