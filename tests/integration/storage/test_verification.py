"""Flipped bits under real backups: found by ``verify``, named with path and snapshots, repaired where a copy exists."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.backed_up_machine import BackedUpMachine, backed_up_machine, fingerprint
from tests.support.trees import flip_bit

from turku.storage import catalog
from turku.storage.disk import trash
from turku.storage.fs import tree as fs
from turku.storage.fs.stored_content import RateLimiter
from turku.storage.integrity import damage, scrub
from turku.storage.integrity.scrub import ScrubResult, ScrubShare

pytestmark = pytest.mark.storage_rsync


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[BackedUpMachine]:
    """Three snapshots of three files: one shared by all, one with a twin of the same content, one of its own."""
    with backed_up_machine(tmp_path, trash_days=30) as machine:
        root = machine.source_dir
        (root / "d").mkdir()
        (root / "d" / "shared").write_bytes(os.urandom(200_000))
        (root / "twin").write_bytes(b"twin" * 20_000)
        (root / "copy of twin").write_bytes(b"twin" * 20_000)
        machine.days(3)
        yield machine


def verify(machine: BackedUpMachine, **share: float) -> ScrubResult:
    made = scrub.verify(
        machine.place, zone=machine.storage.state.timezone, share=ScrubShare(**share), pace=RateLimiter()
    )
    damage.write(machine.place, [each for each in made.damages if each in made.open_damages])
    return made


def flip(path: Path, at: int = 5000) -> None:
    """One bit, and nothing that anybody would notice."""
    flip_bit(path, at, 1)


def kept(machine: BackedUpMachine, number: int, path: str) -> Path:
    return machine.place.tree(machine.snapshots()[number]) / path


def test_all_is_read_once_however_many_snapshots_share_it(machine: BackedUpMachine) -> None:
    made = verify(machine)
    assert made.damages == []
    assert made.is_complete
    # Three shared files, and the diary of each day.
    assert made.files == 6
    assert made.oldest_check is not None
    for path in ("d/shared", "twin"):
        with catalog.open_catalog(machine.place, zone=machine.storage.state.timezone) as known:
            assert all(entry.checksum for entry in known.history(path.encode()))


def test_flipped_bits_are_named_with_path_and_snapshots_and_repaired_from_a_twin(machine: BackedUpMachine) -> None:
    verify(machine)
    before = {name: fingerprint(machine.place.tree(name)) for name in machine.snapshots()}
    flip(kept(machine, 0, "twin"))
    made = verify(machine)
    [found] = made.damages
    assert (found.path, found.kind, found.state) == ("twin", "content", "repaired")
    assert found.snapshots == tuple(machine.snapshots())
    assert {name: fingerprint(machine.place.tree(name)) for name in machine.snapshots()} == before
    assert len({kept(machine, number, "twin").stat().st_ino for number in range(3)}) == 1
    assert verify(machine).damages == []


def test_without_a_copy_the_next_backup_transfers_it_and_history_is_repaired_from_there(
    machine: BackedUpMachine,
) -> None:
    verify(machine)
    before = {name: fingerprint(machine.place.tree(name)) for name in machine.snapshots()}
    flip(kept(machine, 1, "d/shared"))
    [found] = verify(machine).damages
    assert (found.path, found.state) == ("d/shared", "next_backup")
    assert len(found.snapshots) == 3
    [again] = verify(machine).damages
    assert again.state == "next_backup"
    assert machine.back_up().success
    assert kept(machine, 3, "d/shared").read_bytes() == (machine.source_dir / "d" / "shared").read_bytes()
    [repaired] = verify(machine).damages
    assert repaired.state == "repaired"
    assert before.items() <= {name: fingerprint(machine.place.tree(name)) for name in machine.snapshots()}.items()
    assert verify(machine).damages == []


def test_content_that_no_copy_and_no_machine_has_is_lost(machine: BackedUpMachine) -> None:
    verify(machine)
    flip(kept(machine, 0, "diary"), at=3)
    [found] = verify(machine).damages
    assert (found.path, found.state, found.snapshots) == ("diary", "lost", (machine.snapshots()[0],))
    [again] = verify(machine).damages
    assert again.state == "lost"


def test_a_missing_file_comes_back_from_another_snapshot(machine: BackedUpMachine) -> None:
    verify(machine)
    kept(machine, 1, "d/shared").unlink()
    [found] = verify(machine).damages
    assert (found.kind, found.state, found.snapshots) == ("missing", "repaired", (machine.snapshots()[1],))
    assert kept(machine, 1, "d/shared").read_bytes() == (machine.source_dir / "d" / "shared").read_bytes()


def with_attribute(path: Path, value: bytes) -> None:
    times = path.stat()
    os.setxattr(path, "user.comment", value)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_a_file_whose_attributes_alone_are_others_is_named_and_repaired_from_another_snapshot(
    machine: BackedUpMachine,
) -> None:
    # A tree of an earlier run, whose files another program made anew.
    twin = kept(machine, 1, "twin")
    content, status = twin.read_bytes(), twin.stat()
    twin.unlink()
    twin.write_bytes(content)
    os.utime(twin, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert verify(machine).damages == []
    with_attribute(twin, b"nobody's")
    [found] = verify(machine).damages
    assert (found.path, found.kind, found.state) == ("twin", "attributes", "repaired")
    assert found.snapshots == (machine.snapshots()[1],)
    assert os.listxattr(twin) == []
    assert twin.read_bytes() == content
    assert twin.stat().st_mtime_ns == status.st_mtime_ns
    assert verify(machine).damages == []


def test_attributes_that_no_copy_has_are_transferred_by_the_next_backup(machine: BackedUpMachine) -> None:
    verify(machine)
    with_attribute(kept(machine, 0, "twin"), b"nobody's")
    [found] = verify(machine).damages
    assert (found.path, found.kind, found.state) == ("twin", "attributes", "next_backup")
    assert machine.back_up().success
    assert os.listxattr(kept(machine, 3, "twin")) == []
    assert {each.state for each in verify(machine).damages} == {"repaired"}
    assert os.listxattr(kept(machine, 0, "twin")) == []
    assert verify(machine).damages == []


def test_attributes_that_nobody_has_read_are_taken_as_they_are(machine: BackedUpMachine) -> None:
    with (
        catalog.open_catalog(machine.place, zone=machine.storage.state.timezone) as known,
        known.writing() as connection,
    ):
        connection.execute("UPDATE versions SET attributes = NULL")
    with_attribute(kept(machine, 0, "twin"), b"of old")
    assert verify(machine).damages == []
    with_attribute(kept(machine, 0, "twin"), b"of now")
    assert [(each.path, each.kind) for each in verify(machine).damages] == [("twin", "attributes")]


def test_damage_of_a_snapshot_that_leaves_history_is_gone(machine: BackedUpMachine) -> None:
    verify(machine)
    flip(kept(machine, 0, "diary"), at=3)
    assert verify(machine).open_damages
    oldest = machine.snapshots()[0]
    machine.place.snapshot(oldest).rename(machine.place.snapshots_dir / f".deleting-{oldest}")
    made = verify(machine)
    assert [each.state for each in made.damages] == ["gone"]
    assert made.open_damages == []


def test_a_sample_takes_those_that_were_read_longest_ago(machine: BackedUpMachine) -> None:
    counts = [verify(machine, percent=34).versions for _ in range(3)]
    assert sum(counts) >= 6
    with catalog.open_catalog(machine.place, zone=machine.storage.state.timezone) as known:
        assert all(entry.checked for entry in known.oldest_checked(100))


def test_a_budget_that_is_used_up_leaves_the_rest_to_the_next_run(machine: BackedUpMachine) -> None:
    made = scrub.verify(
        machine.place, zone=machine.storage.state.timezone, share=ScrubShare(until_seconds=0.0), pace=RateLimiter()
    )
    assert (made.versions, made.is_complete) == (0, False)
    assert verify(machine).versions == 6


def test_a_file_without_a_checksum_is_trusted_on_first_sight_if_size_and_time_agree(machine: BackedUpMachine) -> None:
    with catalog.open_catalog(machine.place, zone=machine.storage.state.timezone) as known:
        for entry in known.oldest_checked(100):
            with known.writing() as connection:
                connection.execute("UPDATE versions SET checksum = NULL WHERE id = ?", (entry.version,))
    os.utime(kept(machine, 0, "twin"), (1, 1))
    made = verify(machine)
    assert made.new_checksums == 5
    [found] = made.damages
    assert (found.path, found.kind) == ("twin", "content")


def test_hard_links_within_the_source_are_repaired_together(tmp_path: Path) -> None:
    with backed_up_machine(tmp_path, preserve_hard_links=True) as machine:
        (machine.source_dir / "a").write_bytes(os.urandom(50_000))
        os.link(machine.source_dir / "a", machine.source_dir / "b")
        machine.days(2)
        verify(machine)
        (machine.source_dir / "other").write_bytes((machine.source_dir / "a").read_bytes())
        machine.days(1)
        verify(machine)
        flip(kept(machine, 0, "a"))
        made = verify(machine)
        assert {each.state for each in made.damages} == {"repaired"}
        inodes = {kept(machine, number, name).stat().st_ino for number in range(3) for name in ("a", "b")}
        assert len(inodes) == 1
        assert verify(machine).damages == []


def test_the_trash_repairs_history_and_is_left_as_it_is(machine: BackedUpMachine) -> None:
    shared = machine.source_dir / "d" / "shared"
    content, gone = shared.read_bytes(), machine.snapshots()[0]
    shared.write_bytes(b"another\n")
    machine.days(1)
    shared.write_bytes(content)
    machine.days(1)
    verify(machine)
    trash.put(machine.place, gone, now=machine.clock.moment)
    [trashed] = trash.trashed_snapshots(machine.place)
    # The one that the trash shares with history, and the one that only history has.
    flip(trashed.path / "d" / "shared")
    [found] = verify(machine).damages
    assert (found.path, found.state) == ("d/shared", "repaired")
    # Nobody recorded what belongs into the trash: a forged record must not lead anything there.
    assert (trashed.path / "d" / "shared").read_bytes() != content
    flip(trashed.path / "d" / "shared")
    for number in (0, 1):
        kept(machine, number, "d/shared").unlink()
    flip(kept(machine, 3, "d/shared"))
    made = verify(machine)
    assert {each.state for each in made.damages} == {"repaired"}
    assert all(kept(machine, number, "d/shared").read_bytes() == content for number in (0, 1, 3))


def test_a_file_of_another_version_is_no_damage_of_this_one(machine: BackedUpMachine) -> None:
    for text in ("one", "two", "one"):
        (machine.source_dir / "twin").write_text(text)
        machine.days(1)
    made = verify(machine)
    assert made.damages == []
    assert made.versions == 6 + 6


def test_a_damaged_file_waits_for_the_next_backup_and_is_not_touched_meanwhile(machine: BackedUpMachine) -> None:
    verify(machine)
    before = os.stat(kept(machine, 0, "d/shared"))
    flip(kept(machine, 0, "d/shared"))
    os.utime(kept(machine, 0, "d/shared"), ns=(before.st_atime_ns, before.st_mtime_ns))
    status = os.stat(kept(machine, 0, "d/shared"))
    assert [each.state for each in verify(machine).damages] == ["next_backup"]
    after = os.stat(kept(machine, 0, "d/shared"))
    # That it was read shows in its time of access alone.
    assert (after[:7], after.st_mtime_ns, after.st_ctime_ns) == (status[:7], status.st_mtime_ns, status.st_ctime_ns)
    (machine.source_dir / "d" / "shared").unlink()
    machine.days(1)
    assert [each.state for each in verify(machine).damages] == ["lost"]
    assert os.stat(kept(machine, 0, "d/shared")).st_mtime_ns == before.st_mtime_ns


class FailingDisk:
    """Reads of one file, by its inode, that give what a disk gives now and then, for the first ``times`` of them.

    Stands in for ``os.pread``, by which alone stored content is read.
    """

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, path: Path, *, times: int, error: int | None = errno.EIO
    ) -> None:
        self.inode = path.stat().st_ino
        self.left = times
        self.error = error
        self._pread = os.pread
        monkeypatch.setattr(os, "pread", self._read)

    def _read(self, descriptor: int, count: int, offset: int) -> bytes:
        content = self._pread(descriptor, count, offset)
        if self.left and offset == 0 and os.fstat(descriptor).st_ino == self.inode:
            self.left -= 1
            if self.error is not None:
                raise OSError(self.error, os.strerror(self.error))
            return bytes([content[0] ^ 1]) + content[1:]
        return content


def everything(machine: BackedUpMachine) -> dict[str, tuple[dict[bytes, Any], dict[str, int]]]:
    """All of history, with the inode of each file."""
    return {
        name: (
            fingerprint(machine.place.tree(name)),
            {str(path): path.lstat().st_ino for path in machine.place.tree(name).rglob("*")},
        )
        for name in machine.snapshots()
    }


@pytest.mark.parametrize("error", [errno.EIO, None], ids=["input/output error", "wrong content"])
def test_a_file_that_is_good_when_read_again_is_neither_named_nor_touched(
    machine: BackedUpMachine, monkeypatch: pytest.MonkeyPatch, error: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    verify(machine)
    before = everything(machine)
    FailingDisk(monkeypatch, kept(machine, 2, "twin"), times=2, error=error)
    assert verify(machine).damages == []
    assert everything(machine) == before
    assert "the disk or its way to this host fails intermittently" in caplog.text


def test_a_file_that_cannot_be_read_is_an_alarm_and_left_as_it_is(
    machine: BackedUpMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    verify(machine)
    before = everything(machine)
    # There is a twin to repair it from: one run's errors are no reason to.
    disk = FailingDisk(monkeypatch, kept(machine, 2, "twin"), times=100)
    [found] = verify(machine).damages
    assert (found.path, found.kind, found.state) == ("twin", "unreadable", "alarm")
    assert damage.to_fetch(machine.place) == frozenset()
    assert everything(machine) == before
    disk.left = 0
    [again] = verify(machine).damages
    assert again.state == "repaired"
    assert everything(machine) == before
    assert verify(machine).damages == []


def test_a_file_that_two_runs_cannot_read_is_replaced_by_a_good_copy(
    machine: BackedUpMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    verify(machine)
    before = {name: fingerprint(machine.place.tree(name)) for name in machine.snapshots()}
    FailingDisk(monkeypatch, kept(machine, 2, "twin"), times=100)
    assert [each.state for each in verify(machine).damages] == ["alarm"]
    assert [each.state for each in verify(machine).damages] == ["repaired"]
    assert {name: fingerprint(machine.place.tree(name)) for name in machine.snapshots()} == before


def test_a_read_error_while_a_copy_is_made_leaves_the_damaged_file_in_place(
    machine: BackedUpMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    verify(machine)
    flip(kept(machine, 0, "twin"))
    before = everything(machine)
    # It is read three times to be judged, and then by who copies it.
    FailingDisk(monkeypatch, kept(machine, 0, "copy of twin"), times=100)
    states = {each.path: each.state for each in verify(machine).damages}
    assert states == {"twin": "next_backup", "copy of twin": "alarm"}
    assert everything(machine) == before


def test_notes_that_cannot_be_read_hold_their_snapshot(
    machine: BackedUpMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    oldest = machine.snapshots()[0]
    read_file = fs.read_file

    def failing(path: Path, *, limit_bytes: int) -> bytes:
        if path == machine.place.record_path(oldest):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read_file(path, limit_bytes=limit_bytes)

    monkeypatch.setattr(fs, "read_file", failing)
    machine.days(1, retention="last 1 snapshots")
    assert oldest in machine.snapshots()
    monkeypatch.undo()
    machine.days(1, retention="last 1 snapshots")
    assert oldest not in machine.snapshots()
