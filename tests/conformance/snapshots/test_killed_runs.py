"""SIGKILL at every step of a run, in every mode: what is in history is whole, and the next run goes on."""

import os
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.support.backed_up_machine import FAILING_RSYNC, BackedUpMachine, fingerprint
from tests.support.killed import killed_at_step

from turku.core.configuration.declaration import with_values
from turku.storage.backup import dry_run
from turku.storage.backup.dry_run import DryRunResult
from turku.storage.snapshots import SnapshotMode, sharing

FULL_RUN_EACH_STEPS = 3
"""A run that succeeds takes what the killed ones left, so that too many of them would hide how those go on."""


def make_small_tree(source: Path) -> None:
    (source / "directory").mkdir()
    for name in ("file", "directory/inner"):
        (source / name).write_text(name)
    (source / "link").symlink_to("file")


def change(source: Path, step: int) -> None:
    (source / "file").chmod(0o600 + step % 8)
    (source / "late").write_text(f"{step:04}")
    (source / "directory" / f"inner {step % 5}").write_text("new")
    (source / "directory" / f"inner {(step + 3) % 5}").unlink(missing_ok=True)


def whole_snapshots(machine: BackedUpMachine, known: dict[str, Any]) -> None:
    """Each snapshot in history is the source as it was when the snapshot was first seen, and stays so."""
    for name in machine.snapshots():
        tree = machine.place.snapshot(name)
        if name not in known:
            assert machine.differences(tree) == []
            known[name] = fingerprint(tree)
        assert fingerprint(tree) == known[name]


def assert_tidy(machine: BackedUpMachine, mode: type[SnapshotMode]) -> None:
    names = os.listdir(machine.place.snapshots_dir) if machine.place.snapshots_dir.exists() else []
    names = [name for name in names if name != machine.place.retention_rules.name]
    snapshots = machine.snapshots()
    if mode.keeps_history:
        assert sorted(names) == sorted(["latest", *snapshots, *(f"{name}.json" for name in snapshots)])
        assert os.readlink(machine.place.latest) == snapshots[-1]
    else:
        assert names == []


def test_nights_that_fail_leave_nothing_to_be_removed(machine: BackedUpMachine, mode: type[SnapshotMode]) -> None:
    make_small_tree(machine.source_dir)
    assert machine.back_up().success
    machine.place.snapshots_dir.mkdir(exist_ok=True)
    # What killed runs leave, and what a night leaves that fails when its tree is nearly whole.
    left = machine.place.snapshots_dir / ".deleting-assembling-0a1b2c3d" / "inner"
    for night in range(2):
        change(machine.source_dir, night)
        left.mkdir(parents=True)
        (left / "file").touch()
        assert not machine.with_rsync(*FAILING_RSYNC).back_up().success
        assert [name for name in os.listdir(machine.place.snapshots_dir) if name.startswith(".deleting-")] == []
        limited = replace(machine, storage=with_values(machine.storage, max_run_files=1))
        limited.back_up()
        assert [name for name in os.listdir(machine.place.snapshots_dir) if name.startswith(".deleting-")] == []
    machine.clock.moment += timedelta(days=1)
    assert machine.back_up().success
    assert machine.differences(machine.newest_tree()) == []


def test_a_run_killed_at_any_step_leaves_whole_snapshots_and_the_next_run_goes_on(
    machine: BackedUpMachine, mode: type[SnapshotMode]
) -> None:
    machine.storage = with_values(machine.storage, sandbox="off")
    make_small_tree(machine.source_dir)
    known: dict[str, Any] = {}

    def run() -> None:
        outcome = machine.back_up(retention="last 2 snapshots")
        assert outcome.success, outcome.summary

    for _ in range(2):
        run()
        whole_snapshots(machine, known)
    step = ended_in_a_row = 0
    # The second one found nothing left over, and so took the most steps that there are.
    while ended_in_a_row < 2:
        step += 1
        change(machine.source_dir, step)
        if step == 1:
            assert not machine.with_rsync(*FAILING_RSYNC).back_up().success
        # It finds what the one before it left, and comes a step further.
        is_killed = killed_at_step(step, run)
        ended_in_a_row = 0 if is_killed else ended_in_a_row + 1
        machine.clock.moment += timedelta(minutes=1)
        whole_snapshots(machine, known)
        if step % FULL_RUN_EACH_STEPS == 0:
            (machine.source_dir / "directory").chmod(0o700 + step % 8)
            run()
        if step % FULL_RUN_EACH_STEPS == 0 or not is_killed:
            assert machine.differences(machine.newest_tree()) == []
            whole_snapshots(machine, known)
            assert_tidy(machine, mode)
    assert step > (20 if mode.keeps_history else 3)


class Killed(BaseException):
    """Stands for the end of the process: nothing of the domain catches it."""


def test_a_full_run_killed_while_it_shares_files_leaves_nothing_that_the_next_one_writes_into(
    machine: BackedUpMachine, mode: type[SnapshotMode], monkeypatch: pytest.MonkeyPatch
) -> None:
    if mode.name != "link-dest":
        pytest.skip("its full runs share no file with the base")
    # A base that its plan cannot be built upon.
    monkeypatch.setattr(
        dry_run, "compare_with_base", lambda *_arguments: DryRunResult(unusable_reason="as this test will have it")
    )
    make_small_tree(machine.source_dir)
    assert machine.back_up().success
    known: dict[str, Any] = {}
    whole_snapshots(machine, known)
    (machine.source_dir / "late").write_text("late")
    share = sharing.share_unchanged

    def share_and_end(base: Path, tree: Path, *, compares_contents: bool) -> None:
        share(base, tree, compares_contents=compares_contents)
        raise Killed

    monkeypatch.setattr(sharing, "share_unchanged", share_and_end)
    with pytest.raises(Killed):
        machine.back_up()
    monkeypatch.setattr(sharing, "share_unchanged", share)
    [first] = machine.snapshots()
    kept = {path.lstat().st_ino for path in machine.place.tree(first).rglob("*") if path.is_file()}
    left = machine.place.staging
    assert not left.exists() or not any(path.lstat().st_ino in kept for path in left.rglob("*") if path.is_file())
    # rsync changes a mode in place, in whatever it finds.
    for path in machine.source_dir.rglob("*"):
        if path.is_file():
            path.chmod(0o604)
    outcome = machine.back_up()
    assert (outcome.success, outcome.strategy) == (True, "full"), outcome.summary
    whole_snapshots(machine, known)
    assert machine.differences(machine.newest_tree()) == []
    assert_tidy(machine, mode)


def test_a_run_killed_while_rsync_is_at_work_leaves_whole_snapshots_and_the_next_run_succeeds(
    machine: BackedUpMachine, mode: type[SnapshotMode]
) -> None:
    make_small_tree(machine.source_dir)
    assert machine.back_up().success
    known: dict[str, Any] = {}
    whole_snapshots(machine, known)
    (machine.source_dir / "file").chmod(0o644)
    (machine.source_dir / "late").write_text("late")
    # rsync's place is taken by a program that does half of its work and kills whoever started it.
    halfway = machine.with_rsync("sh", "-c", '"$0" --exclude="/late*" "$@"; kill -9 $PPID; exec sleep 20', "rsync")
    assert killed_at_step(1_000_000, halfway.back_up)
    machine.clock.moment += timedelta(minutes=1)
    whole_snapshots(machine, known)
    (machine.source_dir / "file").chmod(0o600)
    assert machine.back_up().success
    assert machine.differences(machine.newest_tree()) == []
    whole_snapshots(machine, known)
    assert_tidy(machine, mode)
