"""The changes that a run reports, and their rows in the catalog."""

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import xxhash
from tests.support.random_history import link_copy, state

from turku.core import lock
from turku.core.filesystem import directory_tree
from turku.storage import catalog
from turku.storage.catalog import CatalogEntry, database
from turku.storage.catalog.entry import NO_ATTRIBUTES
from turku.storage.disk.source_directory import SourceDirectory
from turku.storage.rsync.change_log import Change, ChangeKind, ChangeLog

BEGINNING = datetime(2026, 11, 1, tzinfo=UTC)


def digest(content: bytes) -> bytes:
    return xxhash.xxh128(content).digest()


class Source:
    """A source whose snapshots are made by hand. ``tell`` adds the lines that rsync would print of each."""

    def __init__(self, directory: Path) -> None:
        self.place = SourceDirectory(directory / "9bef0a75-5a9b-43f7-a66a-7e8c6d7ad91d", "etc")
        self.place.snapshots_dir.mkdir(parents=True)
        self.names: list[str] = []

    @property
    def tree(self) -> Path:
        """The next snapshot's, with the files of the last one."""
        tree = self.place.working_tree
        if not tree.exists():
            if self.names:
                link_copy(os.fsencode(self.place.tree(self.names[-1])), os.fsencode(tree))
            else:
                tree.mkdir()
        return tree

    def snapshot(self, changes: Iterable[Change] | None, *, is_complete: bool = True, base: str | None = None) -> str:
        tree, number = self.tree, len(self.names) + 1
        moment = BEGINNING + timedelta(hours=number)
        name = f"etc_{moment:%Y%m%d-%H%M%S}_{number:04x}"
        base = base or (self.names[-1] if self.names else None)
        with ChangeLog() as itemized:
            itemized.lists_every_change = is_complete
            for change in changes or ():
                itemized.add(change)
            assert catalog.record(
                self.place,
                name=name,
                base=base,
                tree=tree,
                changes=None if changes is None else itemized,
                moment=moment,
                zone=UTC,
            )
        tree.rename(self.place.snapshot(name))
        self.names.append(name)
        return name

    def entries(self, name: str) -> dict[bytes, CatalogEntry]:
        with catalog.open_catalog(self.place, zone=UTC) as opened:
            found = {entry.path: entry for entry in opened.files(name)}
        assert {path: entry.content[:6] for path, entry in found.items()} == {
            path: content[:6] for path, content in state(self.place.tree(name)).items()
        }
        return found


@pytest.fixture
def source(tmp_path: Path) -> Source:
    source = Source(tmp_path)
    (source.tree / "directory" / "inner").mkdir(parents=True)
    (source.tree / "directory" / "inner" / "file").write_text("text")
    (source.tree / "file").write_text("text")
    source.snapshot(None)
    return source


def rewritten(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    path.write_text(text)


@pytest.mark.parametrize("becomes", ["nothing", "a file"])
def test_entries_below_a_directory_go_with_it(source: Source, becomes: str) -> None:
    shutil.rmtree(source.tree / "directory")
    if becomes == "a file":
        (source.tree / "directory").write_text("text")
    kind = ChangeKind.CHANGED if becomes == "a file" else ChangeKind.DELETED
    assert set(source.entries(source.snapshot([Change(b"directory", kind)]))) <= {b"directory", b"file"}


def test_a_directory_s_time_is_the_new_one_though_rsync_named_its_file_only(source: Source) -> None:
    rewritten(source.tree / "directory" / "inner" / "file", "changed")
    os.utime(source.tree / "directory", ns=(5, 5))
    source.entries(source.snapshot([Change(b"directory/inner/file", ChangeKind.CHANGED, is_file=True)]))


def test_a_complete_account_is_not_checked_by_reading_everything(source: Source) -> None:
    # Only of what changed: a tree of 1,000,000 files is not walked for one of them.
    (source.tree / "secretly there").touch()
    rewritten(source.tree / "file", "changed")
    name = source.snapshot([Change(b"file", ChangeKind.CHANGED, is_file=True)])
    with catalog.open_catalog(source.place, zone=UTC) as opened:
        assert b"secretly there" not in {entry.path for entry in opened.files(name)}


def test_an_incomplete_account_is(source: Source) -> None:
    (source.tree / "secretly there").touch()
    assert b"secretly there" in source.entries(source.snapshot([], is_complete=False))


def test_a_changed_file_with_several_names_does_not_have_everything_read(source: Source) -> None:
    os.link(source.tree / "file", source.tree / "other name")
    before = source.snapshot(None)
    for name in ("file", "other name"):
        (source.tree / name).unlink()
    (source.tree / "file").write_text("changed")
    os.link(source.tree / "file", source.tree / "other name")
    (source.tree / "secretly there").touch()
    after = source.snapshot([Change(b"file", ChangeKind.CHANGED), Change(b"other name", ChangeKind.CHANGED)])
    with catalog.open_catalog(source.place, zone=UTC) as opened:
        assert {each.path for each in opened.diff(before, after)} == {b"file", b"other name"}
        assert {entry.checksum for entry in opened.find(b"name", snapshot=after)} == {digest(b"changed")}


def with_attribute(path: Path, value: bytes) -> None:
    """Give the file another attribute and nothing else. The file of the snapshot before stays as it is."""
    status, content = path.stat(), path.read_bytes()
    path.unlink()
    path.write_bytes(content)
    os.utime(path, ns=(status.st_mtime_ns, status.st_mtime_ns))
    os.setxattr(path, "user.comment", value)


def test_a_changed_attribute_alone_is_a_new_version(source: Source) -> None:
    before = source.names[0]
    with_attribute(source.tree / "file", b"first")
    first = source.snapshot([Change(b"file", ChangeKind.CHANGED, is_file=True)])
    with_attribute(source.tree / "file", b"second")
    second = source.snapshot([Change(b"file", ChangeKind.CHANGED, is_file=True)])
    os.setxattr(source.tree / "directory", "user.comment", b"of a directory")
    third = source.snapshot([Change(b"directory", ChangeKind.CHANGED)])
    with catalog.open_catalog(source.place, zone=UTC) as opened:
        versions = opened.history(b"file")
        assert [entry.first for entry in versions] == [before, first, second]
        assert versions[0].attributes == NO_ATTRIBUTES
        assert len({entry.attributes for entry in versions}) == 3
        assert [each.path for each in opened.diff(first, second)] == [b"file"]
        assert [each.path for each in opened.diff(second, third)] == [b"directory"]
        [back] = opened.diff(third, second)
        assert back.after is not None
        assert back.after.attributes == NO_ATTRIBUTES


def as_of_an_earlier_release(place: SourceDirectory) -> None:
    """Let the catalog be one that knows no attributes, with its times as such a catalog has them."""
    with closing(sqlite3.connect(database.file_of(place))) as connection:
        connection.execute("ALTER TABLE versions DROP COLUMN attributes")
        connection.execute("ALTER TABLE versions DROP COLUMN has_holes")
        connection.execute("UPDATE versions SET mtime_ns = ? WHERE typeof(mtime_ns) = 'blob'", (2**63 - 1,))
        connection.execute("PRAGMA user_version = 2")
        connection.commit()


def test_a_catalog_of_an_earlier_release_goes_on_with_its_checksums_and_no_file_has_changed(source: Source) -> None:
    rewritten(source.tree / "file", "first")
    os.setxattr(source.tree / "file", "user.comment", b"a note")
    last = source.snapshot([Change(b"file", ChangeKind.CHANGED, is_file=True)])
    as_of_an_earlier_release(source.place)
    with catalog.open_catalog(source.place, zone=UTC) as opened:
        assert {entry.attributes for entry in opened.files(last)} == {None}
        [entry] = [entry for entry in opened.files(last) if entry.path == b"file"]
        assert entry.checksum == digest(b"first")
    rewritten(source.tree / "other", "new")
    # All of the tree is read, and all of its attributes with it.
    new = source.snapshot(None)
    with catalog.open_catalog(source.place, zone=UTC) as opened:
        assert [(each.path, each.kind) for each in opened.diff(last, new)] == [(b"other", "added")]
        assert next(iter(opened.find(b"file", snapshot=new))).checksum == digest(b"first")
    assert not list(source.place.machine_dir.parent.rglob("*.broken"))


def test_attributes_that_come_after_an_earlier_release_are_a_change(source: Source) -> None:
    last = source.names[-1]
    as_of_an_earlier_release(source.place)
    with_attribute(source.tree / "file", b"now kept")
    new = source.snapshot([Change(b"file", ChangeKind.CHANGED, is_file=True)])
    with catalog.open_catalog(source.place, zone=UTC) as opened:
        assert [entry.first for entry in opened.history(b"file")] == [last, new]


@pytest.mark.parametrize("second", [-(2**40), -(2**31) - 1, -1, 0, 15_000_000_000, 2**33, 2**40, 2**61])
def test_dates_are_exact_whatever_64_bits_of_nanoseconds_hold(tmp_path: Path, second: int) -> None:
    memory = Path("/dev/shm")
    directory = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else tmp_path))
    try:
        source = Source(directory)
        source.tree.mkdir(parents=True, exist_ok=True)
        (source.tree / "file").write_text("text")
        os.utime(source.tree / "file", ns=(0, second * 10**9 + 123_456_789))
        found = (source.tree / "file").stat().st_mtime_ns
        before = source.snapshot(None)
        assert source.entries(before)[b"file"].mtime_ns == found
        with_attribute(source.tree / "file", b"a note")
        os.utime(source.tree / "file", ns=(0, found + 1))
        after = source.snapshot([Change(b"file", ChangeKind.CHANGED, is_file=True)])
        assert source.entries(after)[b"file"].mtime_ns == (source.place.tree(after) / "file").stat().st_mtime_ns
        with catalog.open_catalog(source.place, zone=UTC) as opened:
            assert [each.path for each in opened.diff(before, after)] == [b"file"]
    finally:
        shutil.rmtree(directory)


def test_a_checksum_is_carried_over_with_the_very_file(source: Source) -> None:
    rewritten(source.tree / "file", "first")
    source.snapshot([Change(b"file", ChangeKind.CHANGED)])
    # It is not read again: what a disk made of it since is for verification to find.
    moment = (source.tree / "file").stat().st_mtime_ns
    with (source.tree / "file").open("r+b") as stream:
        stream.write(b"FIRST")
    os.utime(source.tree / "file", ns=(moment, moment))
    assert source.entries(source.snapshot(None))[b"file"].checksum == digest(b"first")


def test_a_checksum_is_not_carried_over_to_another_file_that_looks_the_same(source: Source) -> None:
    rewritten(source.tree / "file", "first")
    os.utime(source.tree / "file", ns=(5, 5))
    source.snapshot([Change(b"file", ChangeKind.CHANGED)])
    rewritten(source.tree / "file", "other")
    os.utime(source.tree / "file", ns=(5, 5))
    source.snapshot([Change(b"file", ChangeKind.CHANGED)], is_complete=False)
    # Two versions, though nothing but the content differs. The first, which was read later, is not known.
    with catalog.open_catalog(source.place, zone=UTC) as opened:
        assert [entry.checksum for entry in opened.history(b"file")][1:] == [digest(b"first"), digest(b"other")]


def test_a_snapshot_built_upon_an_older_one_takes_its_checksums_from_there(source: Source) -> None:
    rewritten(source.tree / "file", "good")
    os.utime(source.tree / "file", ns=(5, 5))
    good = source.snapshot([Change(b"file", ChangeKind.CHANGED)])
    # An attacker sets the time back.
    rewritten(source.tree / "file", "evil")
    os.utime(source.tree / "file", ns=(5, 5))
    source.snapshot([Change(b"file", ChangeKind.CHANGED)])
    link_copy(os.fsencode(source.place.tree(good)), os.fsencode(source.place.working_tree))
    assert source.entries(source.snapshot([], base=good))[b"file"].checksum == digest(b"good")


def test_browsing_leaves_the_staged_rows_of_a_run_alone(source: Source) -> None:
    rewritten(source.tree / "file", "new")
    name = f"etc_{BEGINNING + timedelta(hours=9):%Y%m%d-%H%M%S}_0009"
    itemized = [Change(b"file", ChangeKind.CHANGED)]
    with lock.exclusive(source.place.machine_dir, ".etc"), ChangeLog() as changes:
        changes.lists_every_change = True
        changes.add(itemized[0])
        assert catalog.record(
            source.place, name=name, base=source.names[0], tree=source.tree, changes=changes, moment=BEGINNING, zone=UTC
        )
        with catalog.open_catalog(source.place, zone=UTC) as opened:
            assert [each.name for each in opened.snapshots()] == source.names
        source.tree.rename(source.place.snapshot(name))
    # Its checksum is nowhere else.
    assert source.entries(name)[b"file"].checksum == digest(b"new")


def test_many_snapshots_come_back_between_two(source: Source) -> None:
    """Positions between two others run out, and are spread again."""
    first = source.names[0]
    (source.tree / "file").unlink()
    last = source.snapshot(None)
    for number in range(25):
        moment = BEGINNING + timedelta(hours=1, seconds=1 + number)
        between = source.place.snapshot(f"etc_{moment:%Y%m%d-%H%M%S}_{number:04x}")
        link_copy(os.fsencode(source.place.tree(first)), os.fsencode(between))
        (between / f"only {number}").touch()
        assert len(source.entries(between.name)) == 5
    assert set(source.entries(first)) - set(source.entries(last)) == {b"file"}
    with catalog.open_catalog(source.place, zone=UTC) as opened:
        assert len(opened.history(b"file")) == 1


def test_a_snapshot_with_another_age_gets_another_place(source: Source) -> None:
    (source.tree / "file").unlink()
    second = source.snapshot([Change(b"file", ChangeKind.DELETED)])
    renamed = source.place.snapshot("etc_20261031-000000_ffff")
    source.place.snapshot(second).rename(renamed)
    with catalog.open_catalog(source.place, zone=UTC) as opened:
        assert [each.name for each in opened.snapshots()] == [renamed.name, source.names[0]]
        [entry] = opened.history(b"file")
        assert (entry.first, entry.last) == (source.names[0], source.names[0])


def test_directories_that_nothing_is_in_any_more_are_forgotten(source: Source) -> None:
    shutil.rmtree(source.tree / "directory")
    source.snapshot([Change(b"directory", ChangeKind.DELETED)])
    shutil.rmtree(source.place.snapshot(source.names[0]))
    with catalog.open_catalog(source.place, zone=UTC) as opened:
        assert opened.connection.execute("SELECT path FROM directories").fetchall() == [(b"",)]
        assert opened.connection.execute("SELECT count(*) FROM versions").fetchone() == (1,)


def test_trees_deeper_than_descriptors_and_paths_reach(source: Source) -> None:
    descriptor = os.open(source.tree, os.O_RDONLY)
    for _ in range(300):
        os.mkdir("d" * 50, dir_fd=descriptor)
        inner = os.open("d" * 50, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
    os.close(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=descriptor))
    os.close(descriptor)
    name = source.snapshot(None)
    with catalog.open_catalog(source.place, zone=UTC) as opened:
        deepest = b"/".join([b"d" * 50] * 300 + [b"file"])
        assert opened.entry(name, deepest) is not None
        assert len(list(opened.files(name, b"d" * 50))) == 301


def test_the_cost_of_a_deep_tree_grows_with_its_depth(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    # A machine chose it, and the storage's own work is not ended by the time that a run may take.
    levels = 600
    source.tree.joinpath(*["d"] * levels).mkdir(parents=True)
    source.snapshot(None)
    source.tree.joinpath(*["d"] * levels, "file").write_text("new")
    paths = [b"/".join([b"d"] * (level + 1)) for level in range(levels)]
    changes = [Change(path, ChangeKind.CHANGED) for path in (*paths, paths[-1] + b"/file")]
    entered = 0
    enter = directory_tree.DirectoryTree._enter

    def counted(self: directory_tree.DirectoryTree, parent: int, name: bytes) -> int:
        nonlocal entered
        entered += 1
        return enter(self, parent, name)

    monkeypatch.setattr(directory_tree.DirectoryTree, "_enter", counted)
    name = source.snapshot(changes)
    # Each of them in the new tree and in the old one, a few times.
    assert entered < 10 * levels
    entered = 0
    with catalog.open_catalog(source.place, zone=UTC) as opened:
        assert opened.entry(name, paths[-1] + b"/file") is not None
    with directory_tree.DirectoryTree(source.place.tree(name)) as tree:
        for path in reversed(paths):
            tree.directory(path)
    assert entered < 12 * levels


def test_a_catalog_of_another_program_is_set_aside(source: Source) -> None:
    import sqlite3

    path = database.file_of(source.place)
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE anything (at_all)")
    assert set(source.entries(source.names[0])) == {b"directory", b"directory/inner", b"directory/inner/file", b"file"}
    assert path.with_name(f"{path.name}.broken").exists()
