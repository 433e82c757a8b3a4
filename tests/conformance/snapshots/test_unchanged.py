"""The snapshot of a source that did not change is a link to the one before it, and in all else a snapshot."""

import os
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from tests.support.backed_up_machine import BackedUpMachine, StorageClock, fingerprint
from tests.support.killed import killed_at_step
from tests.support.rich_tree import make_rich_tree

from turku.core.configuration.declaration import with_values
from turku.storage.disk import deletion, snapshot_links, trash
from turku.storage.snapshots import MODES, SnapshotMode
from turku.storage.snapshots.assembly import HardlinkCopy


@pytest.fixture
def mode(request: pytest.FixtureRequest) -> type[SnapshotMode]:
    found = MODES[request.param]
    assert found.keeps_history
    return found


@pytest.fixture
def unchanged(machine: BackedUpMachine) -> BackedUpMachine:
    """With four snapshots, of one tree."""
    machine.storage = with_values(machine.storage, sandbox="off")
    make_rich_tree(machine.source_dir)
    for _ in range(4):
        assert machine.back_up().success
    return machine


in_each_mode = pytest.mark.parametrize(
    "mode", [name for name in sorted(MODES) if MODES[name].keeps_history], indirect=True
)
NOW = StorageClock().now()
with_links = pytest.mark.parametrize("mode", ["link-dest"], indirect=True)


def trees(machine: BackedUpMachine) -> list[str]:
    """The snapshots that have a tree of their own."""
    return [name for name in machine.snapshots() if not machine.place.snapshot(name).is_symlink()]


def assert_all_whole(machine: BackedUpMachine, count: int) -> None:
    names = machine.snapshots()
    assert len(names) == count
    assert len(trees(machine)) == 1
    for name in names:
        assert machine.differences(machine.place.snapshot(name).resolve(), "--no-H") == []
        target = machine.place.link_target(name)
        assert target is None or target == trees(machine)[0]
    assert hidden_names(machine) == []


@in_each_mode
def test_it_takes_two_inodes(machine: BackedUpMachine) -> None:
    make_rich_tree(machine.source_dir)
    assert machine.back_up().success
    before = inodes(machine)
    for number in range(1, 4):
        outcome = machine.back_up()
        assert outcome.success
        assert outcome.snapshot == machine.snapshots()[-1]
        assert len(inodes(machine) - before) == 2 * number
        assert os.readlink(machine.place.latest) == outcome.snapshot
        assert machine.place.latest.resolve() == machine.place.snapshot(trees(machine)[0])
    assert_all_whole(machine, 4)


def hidden_names(machine: BackedUpMachine) -> list[str]:
    """Return the hidden entries beside the snapshots, without the trash and the recorded retention rules."""
    hidden = [name for name in os.listdir(machine.place.snapshots_dir) if name.startswith(".")]
    return [name for name in hidden if not name.startswith(trash.PREFIX) and name != machine.place.retention_rules.name]


def inodes(machine: BackedUpMachine) -> set[tuple[int, int]]:
    """Return device and inode of the entries of the machine's directory that are not replaced each time.

    On btrfs each subvolume numbers its inodes itself, and has a device of its own.
    """
    statuses = [path.lstat() for path in machine.machine_dir.rglob("*") if path.name not in ("latest", ".in-place")]
    return {(status.st_dev, status.st_ino) for status in statuses}


@in_each_mode
def test_a_change_after_it_leaves_all_as_they_were(unchanged: BackedUpMachine) -> None:
    before = fingerprint(unchanged.newest_tree().resolve())
    (unchanged.source_dir / "file").chmod(0o640)
    (unchanged.source_dir / "new").write_text("new")
    assert unchanged.back_up().success
    assert unchanged.differences(unchanged.newest_tree(), "--no-H") == []
    assert len(trees(unchanged)) == 2
    assert all(fingerprint(unchanged.place.tree(name)) == before for name in unchanged.snapshots()[:-1])


@with_links
def test_a_new_mode_of_the_sources_own_directory_is_a_change(unchanged: BackedUpMachine) -> None:
    unchanged.source_dir.chmod(0o711)
    assert unchanged.back_up().success
    assert len(trees(unchanged)) == 2
    assert unchanged.differences(unchanged.newest_tree(), "--no-H") == []


@with_links
def test_a_file_of_the_same_size_and_second_is_a_change(machine: BackedUpMachine) -> None:
    path = machine.source_dir / "file"
    for content, moment in (("one", 1_000_000_000_000_000_001), ("two", 1_000_000_000_000_000_002)):
        path.write_text(content)
        os.utime(path, ns=(moment, moment))
        assert machine.back_up().success
        assert (machine.newest_tree() / "file").read_text() == content


@in_each_mode
def test_retention_counts_it_like_any_other_and_hands_the_tree_over(unchanged: BackedUpMachine) -> None:
    assert unchanged.back_up(retention="last 2 snapshots").success
    assert_all_whole(unchanged, 2)
    assert trees(unchanged) == unchanged.snapshots()[-1:]


@with_links
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_any_order_of_going_leaves_the_rest_whole(unchanged: BackedUpMachine, order: tuple[int, ...]) -> None:
    names = unchanged.snapshots()
    snapshot_mode = MODES["link-dest"](unchanged.place)
    for number, index in enumerate(order, start=1):
        deletion.mark(snapshot_mode.place, names[index])
        snapshot_mode.collect()
        assert_all_whole(unchanged, 4 - number)


@with_links
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (1, 0, 3, 2)])
def test_all_go_to_the_trash_and_come_back_in_any_order(unchanged: BackedUpMachine, order: tuple[int, ...]) -> None:
    place, names, now = unchanged.place, unchanged.snapshots(), unchanged.clock.now()
    for index in order:
        trash.put(place, names[index], now=now)
    assert unchanged.snapshots() == []
    assert sorted(each.name for each in trash.trashed_snapshots(place)) == names
    for count, index in enumerate(reversed(order), start=1):
        [found] = [each for each in trash.trashed_snapshots(place) if each.name == names[index]]
        trash.restore(found, now=now, trash_days=7)
        assert_all_whole(unchanged, count)


@with_links
def test_emptying_the_trash_leaves_history_its_tree(unchanged: BackedUpMachine) -> None:
    place, names = unchanged.place, unchanged.snapshots()
    trash.put(place, names[0], now=unchanged.clock.now())
    trash.put(place, names[3], now=unchanged.clock.now())
    snapshot_mode = MODES["link-dest"](place)
    assert len(trash.empty(snapshot_mode.place, removed_until=unchanged.clock.now() + timedelta(days=1))) == 2
    snapshot_mode.collect()
    assert_all_whole(unchanged, 2)


@with_links
@pytest.mark.parametrize("new_name", ["{}-save", "save.{}", "before the upgrade, save {}"])
def test_a_person_renames_the_one_with_the_tree(unchanged: BackedUpMachine, new_name: str) -> None:
    names = unchanged.snapshots()
    kept = new_name.format(names[0])
    unchanged.place.snapshot(names[0]).rename(unchanged.place.snapshot(kept))
    assert set(unchanged.snapshots()) == {kept, *names[1:]}
    outcome = unchanged.back_up()
    assert set(unchanged.snapshots()) == {kept, *names[1:], outcome.snapshot}
    assert_all_whole(unchanged, 5)


@with_links
def test_another_program_removes_the_tree(unchanged: BackedUpMachine, caplog: pytest.LogCaptureFixture) -> None:
    # As an existing storage deletes snapshots: it knows nothing of links.
    names = unchanged.snapshots()
    shutil.rmtree(unchanged.place.snapshot(names[0]))
    assert unchanged.snapshots() == []
    assert unchanged.back_up().success
    assert_all_whole(unchanged, 1)
    assert f"{names[1]} is gone" in caplog.text


@with_links
@pytest.mark.parametrize(
    "target", ["../../{victim}/etc.snapshots/x", "/etc", "..", ".", "latest", "etc_20260101-000000_0000"]
)
def test_a_link_to_anywhere_else_is_no_snapshot(unchanged: BackedUpMachine, target: str) -> None:
    name = "etc_20250101-000000_abcd"
    unchanged.place.snapshot(name).symlink_to(target.format(victim="11111111-1111-4111-8111-111111111111"))
    assert name not in unchanged.snapshots()
    assert not unchanged.place.has(name)


@with_links
@pytest.mark.parametrize("going", [deletion.mark, lambda place, name: trash.put(place, name, now=NOW)])
def test_killed_at_any_step_of_its_going_every_other_one_is_whole(
    unchanged: BackedUpMachine, going: Callable[..., object]
) -> None:
    place, names = unchanged.place, unchanged.snapshots()
    whole = fingerprint(place.tree(names[0]))
    snapshot_mode = MODES["link-dest"](place)
    step = 0
    for name in names[:-1]:
        step = 0
        while place.has(name):
            step += 1
            is_killed = killed_at_step(step, lambda gone=name: going(place, gone))  # type: ignore[misc]
            left = names[names.index(name) + 1 :]
            assert [each for each in unchanged.snapshots() if each != name] == left
            assert all(fingerprint(place.tree(each)) == whole for each in left)
            if step % 2:
                snapshot_mode.tidy()
                assert all(fingerprint(place.tree(each)) == whole for each in left)
            if not is_killed:
                break
    assert step >= 1
    snapshot_mode.collect()
    assert_all_whole(unchanged, 1)


@with_links
def test_a_killed_return_from_the_trash_is_gone_on_with(unchanged: BackedUpMachine) -> None:
    place, names = unchanged.place, unchanged.snapshots()
    for name in names:
        trash.put(place, name, now=NOW)
    step = 0
    while not place.has(names[1]):
        step += 1
        [found] = [each for each in trash.trashed_snapshots(place) if each.name == names[1]]
        killed_at_step(step, lambda it=found: trash.restore(it, now=NOW, trash_days=7))  # type: ignore[misc]
        snapshot_links.tidy(place)
        known = {each.name for each in trash.trashed_snapshots(place)} | set(unchanged.snapshots())
        assert known == set(names)
    assert unchanged.differences(place.tree(names[1]), "--no-H") == []


@with_links
def test_one_with_findings_is_quarantined_though_it_is_a_link(unchanged: BackedUpMachine, tmp_path: Path) -> None:
    # Built upon one that was not reviewed, it is quarantined itself.
    from turku.storage.disk import history, snapshot_notes

    place = unchanged.place
    snapshot_notes.change(place, unchanged.snapshots()[-1], findings=("looks odd",))
    outcome = unchanged.back_up(retention="last 1 snapshots")
    assert outcome.findings
    assert len(unchanged.snapshots()) == 5
    assert [
        each.name for each in history.awaiting_review(place, unchanged.storage.state.timezone)
    ] == unchanged.snapshots()[-2:]
    assert place.snapshot(unchanged.snapshots()[-1]).is_symlink()


@with_links
def test_copies_from_before_the_first_difference_are_removed_where_there_is_none(
    unchanged: BackedUpMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[bool] = []
    original = HardlinkCopy.begin
    monkeypatch.setattr(HardlinkCopy, "begin", lambda copy: (begun.append(True), original(copy)))
    machine = unchanged
    assert machine.back_up().strategy == "unchanged"
    assert not begun
    (machine.source_dir / "changed").write_text("changed")
    assert machine.back_up().strategy == "incremental"
    begun.clear()
    # The one before it changed something, so that this one is expected to.
    assert machine.back_up().strategy == "unchanged"
    assert begun
    assert machine.differences(machine.newest_tree().resolve(), "--no-H") == []
    assert hidden_names(machine) == []
    begun.clear()
    assert machine.back_up().strategy == "unchanged"
    assert not begun
