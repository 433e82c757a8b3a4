"""Trees of rsnapshot and of rsync become history, and the next backup is incremental over the latest one."""

import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest import mock

import pytest
from tests.support import storage_command
from tests.support.backed_up_machine import BackedUpMachine, backed_up_machine, fingerprint
from tests.support.rich_tree import make_rich_tree

from turku.errors import BackupFailed, InvalidValue, LockHeld, NotInHistory, UsageError
from turku.storage import catalog
from turku.storage.backup import adoption
from turku.storage.disk import snapshot_notes
from turku.storage.disk.source_lookup import locked
from turku.storage.fs import hardlink_copy

pytestmark = [
    pytest.mark.both_rsyncs,
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="a storage without root keeps owners in attributes, which trees lack"),
]

DAYS = 3


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[BackedUpMachine]:
    with backed_up_machine(
        tmp_path, volumes={"data": {"path": str(tmp_path / "volume"), "accept_new_high_water_pct": 100}}
    ) as machine:
        make_rich_tree(machine.source_dir)
        yield machine


def moment(machine: BackedUpMachine, days_ago: int) -> datetime:
    return machine.clock.moment - timedelta(days=days_ago, hours=1)


def rsnapshot(machine: BackedUpMachine, root: Path) -> Path:
    """Three days of rsnapshot: hard links to the day before, and the time on the directory of the interval."""
    former: Path | None = None
    for days_ago in reversed(range(DAYS)):
        interval = root / f"daily.{days_ago}"
        tree = interval / "web2" / "etc"
        tree.parent.mkdir(parents=True)
        diary = machine.source_dir / "diary"
        diary.write_text(f"day {days_ago}\n")
        os.utime(diary, (moment(machine, days_ago).timestamp(),) * 2)
        shared = "" if former is None else f"--link-dest={former}"
        assert os.system(f"rsync -aHAX --modify-window=-1 {shared} {machine.source_dir}/ {tree}/") == 0
        seconds = moment(machine, days_ago).timestamp()
        os.utime(interval, (seconds, seconds))
        former = tree
    return root


def adopt(machine: BackedUpMachine, *arguments: str | Path) -> str:
    words = ("adopt", *map(str, arguments), "--machine", machine.machine_dir.name, "--source", machine.source)
    code, printed = storage_command.run(machine.storage, *words, clock=machine.clock)
    assert code == 0
    return printed


def test_rsnapshots_trees_become_history_without_space_and_the_original_stays(
    machine: BackedUpMachine, tmp_path: Path
) -> None:
    root = rsnapshot(machine, tmp_path / "rsnapshot")
    before = {path: fingerprint(path) for path in sorted(root.iterdir())}
    printed = adopt(machine, root, "--inside", "web2/etc")
    assert "has 3 snapshots" in printed
    names = machine.snapshots()
    assert [name[: len("etc_20260131")] for name in names] == ["etc_20260129", "etc_20260130", "etc_20260131"]
    for number, name in enumerate(names):
        original = root / f"daily.{DAYS - 1 - number}" / "web2" / "etc"
        assert fingerprint(machine.place.tree(name)) == fingerprint(original)
        assert (machine.place.tree(name) / "large").stat().st_ino == (original / "large").stat().st_ino
    assert {path: fingerprint(path) for path in sorted(root.iterdir())} == before
    assert machine.place.latest.readlink() == Path(names[-1])
    with catalog.open_catalog(machine.place, zone=UTC) as opened:
        assert len(opened.snapshots()) == DAYS


def test_the_next_backup_is_incremental_and_shares_what_is_unchanged(machine: BackedUpMachine, tmp_path: Path) -> None:
    adopt(machine, rsnapshot(machine, tmp_path / "rsnapshot"), "--inside", "web2/etc")
    (machine.source_dir / "diary").write_text("today\n")
    outcome = machine.back_up(preserve_hard_links=True)
    assert outcome.success, outcome.summary
    assert outcome.snapshot is not None
    assert (outcome.strategy, outcome.strategy_reason, outcome.findings) == ("incremental", "", ())
    *_, adopted, new = machine.snapshots()
    assert snapshot_notes.read(machine.place, new).strategy == "incremental"
    trees = [machine.place.tree(name) for name in (adopted, new)]
    assert len({(tree / "large").stat().st_ino for tree in trees}) == 1
    assert [(tree / "diary").read_text() for tree in trees] == ["day 0\n", "today\n"]
    assert machine.differences(trees[1]) == []


def test_an_unchanged_source_is_a_link_to_the_adopted_snapshot(machine: BackedUpMachine, tmp_path: Path) -> None:
    adopt(machine, rsnapshot(machine, tmp_path / "rsnapshot"), "--inside", "web2/etc")
    assert machine.back_up(preserve_hard_links=True).strategy == "unchanged"


def test_the_preview_changes_nothing_and_a_second_run_adopts_what_is_new(
    machine: BackedUpMachine, tmp_path: Path
) -> None:
    root = rsnapshot(machine, tmp_path / "rsnapshot")
    printed = adopt(machine, root, "--inside", "web2/etc", "--dry-run")
    assert printed.count("\tnew\n") == DAYS
    assert "3 trees to adopt" in printed
    assert list(machine.machine_dir.iterdir()) == []
    adopt(machine, root, "--inside", "web2/etc")
    names = machine.snapshots()
    # Another night of rsnapshot: every interval has another name.
    (root / "daily.2").rename(root / "daily.3")
    printed = adopt(machine, root, "--inside", "web2/etc")
    assert "0 trees to adopt" in printed
    assert f"is {names[0]}" in printed
    assert machine.snapshots() == names


def test_directories_of_rsync_have_their_dates_in_their_names_or_times(
    machine: BackedUpMachine, tmp_path: Path
) -> None:
    named, timed = tmp_path / "web2-2025-12-24_03-30", tmp_path / "current"
    for tree in (named, timed):
        shutil.copytree(machine.source_dir / "directory", tree)
    (named / "only here").write_text("old\n")
    os.utime(timed, (1768000000, 1768000000))
    adopt(machine, named, timed)
    assert [name[:-5] for name in machine.snapshots()] == [
        "etc_20251224-033000",
        f"etc_{datetime.fromtimestamp(1768000000, UTC):%Y%m%d-%H%M%S}",
    ]
    given = tmp_path / "given"
    given.mkdir()
    adopt(machine, given, "--date", "2025-11-01 12:00")
    assert machine.snapshots()[0].startswith("etc_20251101-120000_")
    with pytest.raises(UsageError):
        adopt(machine, named, timed, "--date", "2025-11-01")


def test_a_copy_shares_what_the_trees_share(machine: BackedUpMachine, tmp_path: Path) -> None:
    root = rsnapshot(machine, tmp_path / "rsnapshot")
    adopt(machine, root, "--inside", "web2/etc", "--copy")
    trees = [machine.place.tree(name) for name in machine.snapshots()]
    assert len({(tree / "large").stat().st_ino for tree in trees}) == 1
    assert (trees[0] / "large").stat().st_ino != (root / "daily.0/web2/etc/large").stat().st_ino
    for number, tree in enumerate(trees):
        assert fingerprint(tree) == fingerprint(root / f"daily.{DAYS - 1 - number}" / "web2" / "etc")
    assert machine.back_up(preserve_hard_links=True).strategy == "unchanged"


@pytest.mark.parametrize("becomes", ["link", "directory"])
def test_a_tree_that_is_replaced_after_it_was_seen_is_not_copied(
    machine: BackedUpMachine, tmp_path: Path, becomes: str
) -> None:
    root = rsnapshot(machine, tmp_path / "rsnapshot")
    found = adoption.find_trees([root / "daily.0" / "web2" / "etc"], "", moment(machine, 0), UTC)
    secret = tmp_path / "secret"
    secret.mkdir()
    tree = found[0].path
    tree.rename(tree.with_name("former"))
    tree.symlink_to(secret) if becomes == "link" else secret.rename(tree)
    with locked(machine.place), pytest.raises(BackupFailed, match="was replaced"):
        adoption.adopt(machine.place, found[0], machine.storage, copies=True)
    assert machine.snapshots() == []


def test_a_run_that_was_killed_is_finished_by_the_next_one(machine: BackedUpMachine, tmp_path: Path) -> None:
    root = rsnapshot(machine, tmp_path / "rsnapshot")
    link_tree, count = hardlink_copy.link_tree, 0

    def killed(source: Path, target: Path) -> None:
        nonlocal count
        count += 1
        link_tree(source, target)
        if count == 2:
            raise KeyboardInterrupt

    with mock.patch.object(hardlink_copy, "link_tree", killed), pytest.raises(KeyboardInterrupt):
        adopt(machine, root, "--inside", "web2/etc")
    assert len(machine.snapshots()) == 1
    adopt(machine, root, "--inside", "web2/etc")
    assert len(machine.snapshots()) == DAYS
    assert [path.name for path in machine.place.snapshots_dir.iterdir() if path.name.startswith(".a")] == []
    assert machine.back_up(preserve_hard_links=True).strategy == "unchanged"


def test_odd_things_are_refused_by_name(machine: BackedUpMachine, tmp_path: Path) -> None:
    root = rsnapshot(machine, tmp_path / "rsnapshot")
    linked = tmp_path / "linked"
    (linked / "daily.0").mkdir(parents=True)
    (linked / "daily.0" / "web2").symlink_to("/etc")
    future = tmp_path / "2031-01-01"
    future.mkdir()
    for arguments, message in (
        ((root, "--inside", "web3/etc"), "there is no web3/etc in any interval"),
        ((root, "--inside", "../etc"), "'..'"),
        ((linked, "--inside", "web2"), "there is no web2"),
        ((tmp_path / "missing",), "is not a directory"),
        ((future,), "is from the future"),
    ):
        with pytest.raises((UsageError, InvalidValue), match=message.replace("..", r"\.\.")):
            adopt(machine, *arguments)
    adopt(machine, root, "--inside", "web2/etc")
    with pytest.raises(UsageError, match="is in the history of machine"):
        adopt(machine, machine.place.tree(machine.snapshots()[0]))
    with locked(machine.place), pytest.raises(LockHeld):
        adopt(machine, root, "--inside", "web2")
    with pytest.raises(NotInHistory):
        storage_command.run(machine.storage, "adopt", str(root), "--machine", "nobody", "--source", "etc")


def test_another_file_system_is_named_before_anything_is_there(machine: BackedUpMachine, tmp_path: Path) -> None:
    root = rsnapshot(machine, tmp_path / "rsnapshot")
    error = OSError(18, "Invalid cross-device link", "file")
    with mock.patch.object(hardlink_copy, "link_tree", side_effect=error), pytest.raises(BackupFailed) as refused:
        adopt(machine, root, "--inside", "web2/etc")
    assert "--copy" in refused.value.hint
    assert machine.snapshots() == []
