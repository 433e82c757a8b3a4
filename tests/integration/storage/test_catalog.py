"""The catalog in a storage's life: killed, broken, full, of an older storage's history, without root."""

import itertools
import logging
import os
import shutil
import sqlite3
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import UTC, timedelta
from pathlib import Path

import pytest
import xxhash
from tests.support.backed_up_machine import BackedUpMachine, backed_up_machine
from tests.support.catalog_oracle import assert_agrees, make_tree
from tests.support.killed import as_user, killed_at_call
from tests.support.loop_volume import loop_volume
from tests.support.random_history import BEGINNING, link_copy, state

from turku.core import command, lock
from turku.errors import CatalogUnusable
from turku.storage import catalog
from turku.storage.catalog import database, streaming
from turku.storage.disk import history, trash
from turku.storage.disk.snapshot_record import SnapshotRecord
from turku.storage.disk.source_directory import SourceDirectory
from turku.storage.rsync.change_log import ChangeLog, ItemizedLine
from turku.storage.snapshots.mode import LinkDest

pytestmark = pytest.mark.storage_rsync

NOBODY = 65534
STEPS = frozenset({"execute", "executemany", "rename", "replace", "symlink", "unlink", "link", "rmdir", "mkdir"})


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[BackedUpMachine]:
    with backed_up_machine(tmp_path) as machine:
        make_tree(machine.source_dir)
        yield machine


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs a file system of its own")
def test_a_rebuild_on_a_full_disk_costs_no_good_catalog(tmp_path: Path) -> None:
    with (
        loop_volume("ext4", size_bytes=32 * 1024 * 1024, directory=tmp_path) as volume,
        backed_up_machine(tmp_path / "machine", volume=volume) as machine,
    ):
        make_tree(machine.source_dir)
        for number in range(2000):
            (
                machine.source_dir / f"a file with quite a long name, so that the catalog takes some room {number}"
            ).touch()
        machine.days(2)
        before = database.file_of(machine.place).read_bytes()
        fill = volume / "fill"
        with suppress(OSError), fill.open("wb", buffering=0) as stream:
            while True:
                stream.write(bytes(4096))
        with pytest.raises(CatalogUnusable, match="cannot be used"):
            catalog.rebuild(machine.place, zone=machine.storage.state.timezone)
        assert database.file_of(machine.place).read_bytes() == before
        assert [path.name for path in database.file_of(machine.place).parent.iterdir()] == ["etc.sqlite"]
        with catalog.open_catalog(machine.place, zone=machine.storage.state.timezone) as known:
            assert len(known.snapshots()) == 2
        fill.unlink()
        assert catalog.rebuild(machine.place, zone=machine.storage.state.timezone) == 2
        with catalog.open_catalog(machine.place, zone=machine.storage.state.timezone) as known:
            assert len(known.snapshots()) == 2


def test_a_rebuild_that_is_killed_leaves_the_catalog_as_it_was_or_a_whole_new_one(machine: BackedUpMachine) -> None:
    machine.days(2)
    zone = machine.storage.state.timezone
    step = 1
    while killed_at_call(step, STEPS, lambda: catalog.rebuild(machine.place, zone=zone)):
        with closing(sqlite3.connect(database.file_of(machine.place))) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert connection.execute("SELECT count(*) FROM snapshots").fetchone() == (2,)
        step += 5
    assert step > 20
    assert catalog.rebuild(machine.place, zone=zone) == 2
    assert [path.name for path in database.file_of(machine.place).parent.iterdir()] == ["etc.sqlite"]


def test_rsync_and_we_write_the_checksum_of_a_file_alike(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for size in (0, 1, 5, 1000, 300_000):
        (source / str(size)).write_bytes(os.urandom(size))
    argv = ["rsync", "-a", "--checksum-choice=xxh128", "--out-format=%C %n", f"{source}/", f"{tmp_path}/target/"]
    listed = {}
    for line in command.run(argv, timeout_seconds=60).stdout.decode().splitlines():
        checksum, name = line.split(" ", 1)
        listed[name] = checksum.strip()
    for file in source.iterdir():
        assert bytes.fromhex(listed[file.name]) == xxhash.xxh128(file.read_bytes()).digest()


@pytest.fixture
def memory() -> Iterator[Path]:
    """A directory whose file system has nobody else's files to flush, where there is one."""
    shared = Path("/dev/shm")
    directory = Path(tempfile.mkdtemp(prefix="turku-", dir=shared if shared.is_dir() else None))
    yield directory
    shutil.rmtree(directory)


def test_killed_at_any_step_catalog_and_snapshots_agree(memory: Path) -> None:
    place = SourceDirectory(memory / "9bef0a75-5a9b-43f7-a66a-7e8c6d7ad91d", "etc")
    place.machine_dir.mkdir()
    counter = itertools.count(1)

    def back_up() -> None:
        with lock.exclusive(place.machine_dir, f".{place.source}"):
            _back_up(place, next(counter))

    is_killed, step = True, 0
    while is_killed:
        step += 1
        for _ in range(2):
            back_up()
        is_killed = killed_at_call(step, STEPS, back_up)
        next(counter)
        with catalog.open_catalog(place, zone=UTC) as opened:
            assert [each.name for each in opened.snapshots()] == _names(place)
            for each in opened.snapshots():
                expected = state(each.stored.path)
                found = {entry.path: entry for entry in opened.files(each.name)}
                assert {path: entry.content[:6] for path, entry in found.items()} == {
                    path: content[:6] for path, content in expected.items()
                }
                assert all(entry.checksum in (None, expected[path][6]) for path, entry in found.items())
    assert step > 40
    assert not list(memory.rglob("*.broken"))


def test_a_file_is_read_once_the_next_one_s_line_has_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # rsync says its line before it gives a file its mode and time.
    monkeypatch.setattr(streaming, "ROWS_AT_ONCE", 1)
    place = SourceDirectory(tmp_path / "9bef0a75-5a9b-43f7-a66a-7e8c6d7ad91d", "etc")
    name, tree = "etc_2026-01-01_00-00-00", place.working_tree
    tree.mkdir(parents=True)
    place.snapshots_dir.mkdir(parents=True, exist_ok=True)
    written = ChangeLog(tmp_path)
    with written, catalog.stream_index(place) as reading:
        assert reading is not None
        reading.begin(tree, written, has_attributes=False)
        for number in range(5):
            file = tree / f"file {number}"
            file.touch(mode=0o600)
            file.write_bytes(bytes([number]))
            written.add_line(ItemizedLine(os.fsencode(file.name), is_new=True, file_type=b"f", checksum=b"\xff" * 16))
            written.flush()
            time.sleep(0.1)
            file.chmod(0o640)
        written.lists_every_change = written.lists_every_written_file = True
        assert catalog.record(
            place, name=name, base=None, tree=tree, changes=written, moment=BEGINNING, zone=UTC, indexer=reading
        )
    tree.rename(place.snapshot(name))
    with catalog.open_catalog(place, zone=UTC) as opened:
        found = {entry.path: (entry.mode, entry.checksum) for entry in opened.files(name)}
    assert found == {b"file %d" % number: (0o640, xxhash.xxh128(bytes([number])).digest()) for number in range(5)}


def _names(place: SourceDirectory) -> list[str]:
    return [each.name for each in history.stored_snapshots(place, UTC)]


def _back_up(place: SourceDirectory, number: int) -> None:
    """Do the steps of a backup around its transfer. The oldest of three snapshots goes through the trash."""
    mode = LinkDest(place)
    names = _names(place)
    base = names[-1] if names else None
    moment = BEGINNING + timedelta(hours=number)
    mode.prepare(base)
    mode.discard_assembly()
    built = place.staging if base is None else place.assembling
    if base is not None:
        link_copy(os.fsencode(place.tree(base)), os.fsencode(built))
    changed = built / f"file {number % 3}"
    changed.unlink(missing_ok=True)
    changed.write_text(f"{number}")
    record = SnapshotRecord(f"etc_{moment:%Y%m%d-%H%M%S}_0000", base, moment, moment)
    catalog.record(place, name=record.name, base=base, tree=built, changes=None, moment=moment, zone=UTC)
    mode.commit(record, built)
    for name in names[:-1]:
        trash.put(place, name, now=moment)
    trash.empty(place, removed_until=moment - timedelta(hours=2))
    catalog.forget(place, zone=UTC)
    mode.collect()


def test_a_broken_catalog_is_moved_aside_and_made_anew(
    machine: BackedUpMachine, caplog: pytest.LogCaptureFixture
) -> None:
    assert machine.back_up().success
    path = database.file_of(machine.place)
    for damage in (b"not a database", b"", path.read_bytes()[:4096] + os.urandom(40_000)):
        path.write_bytes(damage)
        assert machine.back_up().success
        assert_agrees(machine, with_checksums=False)
    assert "cannot be used" in caplog.text
    assert path.with_name(f"{path.name}.broken").exists()


def test_damage_that_shows_while_somebody_browses_is_reported_and_repaired_by_the_next_browsing(
    machine: BackedUpMachine,
) -> None:
    for number in range(2000):
        (machine.source_dir / f"a file with a name that takes some room {number:04}").touch()
    assert machine.back_up().success
    path = database.file_of(machine.place)
    name = machine.snapshots()[0]
    pages = path.read_bytes()
    begin = 20 * 4096
    path.write_bytes(pages[:begin] + b"\xff" * (len(pages) - 2 * begin) + pages[-begin:])
    with catalog.open_catalog(machine.place, zone=UTC) as opened, pytest.raises(CatalogUnusable):
        list(opened.files(name))
    assert_agrees(machine, with_checksums=False)


def test_a_catalog_that_cannot_be_written_fails_no_backup(
    machine: BackedUpMachine, caplog: pytest.LogCaptureFixture
) -> None:
    assert machine.back_up().success
    path = database.file_of(machine.place)
    path.unlink()
    path.mkdir()
    with caplog.at_level(logging.WARNING):
        assert machine.back_up().success
    assert "the catalog was not updated" in caplog.text
    path.rmdir()
    assert machine.back_up().success
    assert_agrees(machine, with_checksums=False)


def test_while_somebody_else_writes_the_catalog_a_backup_does_not_wait_for_long(machine: BackedUpMachine) -> None:
    assert machine.back_up().success
    with sqlite3.connect(database.file_of(machine.place), isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        (machine.source_dir / "new").write_text("new")
        assert machine.back_up().success
        other.execute("ROLLBACK")
    other.close()
    assert_agrees(machine, with_checksums=False)


def test_the_history_of_an_older_storage_gets_its_catalog_on_first_sight(machine: BackedUpMachine) -> None:
    for number in range(4):
        (machine.source_dir / "grows").write_text("x" * number)
        assert machine.back_up().success
    shutil.rmtree(database.file_of(machine.place).parent)
    # A machine is not kept waiting for it.
    (machine.source_dir / "grows").write_text("again")
    assert machine.back_up().success
    assert not _has_rows(machine)
    assert_agrees(machine, with_checksums=False)
    assert _has_rows(machine)


def _has_rows(machine: BackedUpMachine) -> bool:
    with sqlite3.connect(database.file_of(machine.place)) as connection:
        return bool(connection.execute("SELECT count(*) FROM versions").fetchone()[0])


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs a file system of its own")
@pytest.mark.parametrize(("release", "lacks"), [(2, ["attributes", "has_holes"]), (3, ["has_holes"])])
def test_a_catalog_of_an_earlier_release_is_read_where_its_volume_is_mounted_read_only(
    tmp_path: Path, release: int, lacks: list[str]
) -> None:
    with (
        loop_volume("ext4", size_bytes=32 * 1024 * 1024, directory=tmp_path) as volume,
        backed_up_machine(tmp_path / "machine", volume=volume) as machine,
    ):
        make_tree(machine.source_dir)
        [_first, last] = machine.days(2)
        with catalog.open_catalog(machine.place, zone=machine.storage.state.timezone) as known:
            before = [(entry.path, entry.checksum) for entry in known.files(last)]
        with closing(sqlite3.connect(database.file_of(machine.place))) as connection:
            for column in lacks:
                connection.execute(f"ALTER TABLE versions DROP COLUMN {column}")
            connection.execute(f"PRAGMA user_version = {release}")
            connection.commit()
        command.run(["mount", "-o", "remount,ro", volume], timeout_seconds=30)
        with catalog.open_catalog(machine.place, zone=machine.storage.state.timezone) as known:
            assert [(entry.path, entry.checksum) for entry in known.files(last)] == before
            columns = ", ".join(lacks)
            assert known.connection.execute(f"SELECT DISTINCT {columns} FROM versions").fetchall() == [
                tuple(None for _column in lacks)
            ]
        command.run(["mount", "-o", "remount,rw", volume], timeout_seconds=30)


def test_the_catalog_is_the_storage_s_own(machine: BackedUpMachine) -> None:
    assert machine.back_up().success
    path = database.file_of(machine.place)
    assert machine.machine_dir not in path.parents
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for directory in (path.parent, path.parent.parent):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="acts as another user")
@pytest.mark.root
def test_a_storage_without_root_shows_the_owners_that_the_machine_has() -> None:
    with tempfile.TemporaryDirectory(prefix="turku-") as directory, backed_up_machine(Path(directory)) as machine:
        Path(directory).chmod(0o755)
        (machine.source_dir / "file").write_text("text")
        os.chown(machine.source_dir / "file", 1234, 2345)
        (machine.source_dir / "file").chmod(0o4755)
        (machine.source_dir / "link").symlink_to("file")
        os.chown(machine.machine_dir, NOBODY, NOBODY)
        os.chown(machine.machine_dir.parent, NOBODY, NOBODY)

        def run() -> None:
            outcome = machine.back_up()
            assert outcome.success, outcome.summary

        as_user(NOBODY, NOBODY, run)
        assert (machine.newest_tree() / "file").stat().st_uid == NOBODY
        with catalog.open_catalog(machine.place, zone=UTC) as opened:
            file, link = opened.list(machine.snapshots()[-1])
        assert (file.uid, file.gid, file.mode) == (1234, 2345, 0o4755)
        assert file.checksum == xxhash.xxh128(b"text").digest()
        assert (link.kind, link.link_target) == ("link", b"file")
        # What root looked at, the storage goes on writing.
        (machine.source_dir / "another").write_text("text")
        machine.clock.moment += timedelta(hours=1)
        as_user(NOBODY, NOBODY, run)
        with catalog.open_catalog(machine.place, zone=UTC) as opened:
            assert [entry.name for entry in opened.list(machine.snapshots()[-1])] == [b"another", b"file", b"link"]
