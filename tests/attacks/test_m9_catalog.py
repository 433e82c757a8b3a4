"""M9: a compromised receiver tells lies about what it changed, and puts a catalog of its own where it can."""

import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest

from turku.storage import catalog
from turku.storage.catalog import database
from turku.storage.disk.source_directory import SourceDirectory
from turku.storage.rsync.change_log import Change, ChangeKind, ChangeLog

MOMENT = datetime(2026, 11, 1, 12, tzinfo=UTC)
FIRST, SECOND = "etc_20261101-120000_0001", "etc_20261101-130000_0002"


@pytest.fixture
def place(tmp_path: Path) -> SourceDirectory:
    """A machine with one snapshot in its catalog, and the secret of another machine beside it."""
    victim = tmp_path / "11111111-1111-4111-8111-111111111111" / "etc"
    victim.mkdir(parents=True)
    (victim / "secret").write_text("a size that nobody else may know")
    place = SourceDirectory(tmp_path / "9bef0a75-5a9b-43f7-a66a-7e8c6d7ad91d", "etc")
    place.snapshots_dir.mkdir(parents=True)
    tree = place.working_tree
    tree.mkdir()
    (tree / "file").write_text("text")
    assert catalog.record(place, name=FIRST, base=None, tree=tree, changes=None, moment=MOMENT, zone=UTC)
    tree.rename(place.snapshot(FIRST))
    return place


def test_a_name_that_rsync_printed_leads_nowhere_out_of_the_tree(place: SourceDirectory, tmp_path: Path) -> None:
    tree = place.working_tree
    tree.mkdir()
    (tree / "link").symlink_to(tmp_path / "11111111-1111-4111-8111-111111111111" / "etc")
    paths = [
        b"link",
        b"link/secret",
        b"../../../11111111-1111-4111-8111-111111111111/etc/secret",
        str(tmp_path / "11111111-1111-4111-8111-111111111111" / "etc" / "secret").encode(),
        b"link/../link/secret",
        b"./link/secret",
        b"a//b",
        b"",
        b"NUL\0",
    ]
    with ChangeLog() as changes:
        changes.lists_every_change = True
        for path in paths:
            changes.add(Change(path, ChangeKind.CHANGED, is_file=True))
        changes.add(Change(b"file", ChangeKind.DELETED))
        assert catalog.record(place, name=SECOND, base=FIRST, tree=tree, changes=changes, moment=MOMENT, zone=UTC)
    tree.rename(place.snapshot(SECOND))
    with catalog.open_catalog(place, zone=UTC) as opened:
        assert [entry.path for entry in opened.files(SECOND)] == [b"link"]
        assert list(opened.find(b"secret")) == []


def test_a_database_in_the_machine_s_directory_is_never_opened(place: SourceDirectory) -> None:
    planted = place.machine_dir / database.DIRECTORY / place.machine_dir.name / f"{place.source}{database.SUFFIX}"
    planted.parent.mkdir(parents=True)
    with sqlite3.connect(planted) as connection:
        connection.execute("CREATE TABLE snapshots (name, position, moment)")
    before = planted.read_bytes()
    with catalog.open_catalog(place, zone=UTC) as opened:
        assert [entry.path for entry in opened.files(FIRST)] == [b"file"]
    assert planted.read_bytes() == before
    assert place.machine_dir not in database.file_of(place).parents


def test_a_snapshot_that_is_a_link_to_another_machine_is_not_read(place: SourceDirectory, tmp_path: Path) -> None:
    place.snapshot(SECOND).symlink_to(tmp_path / "11111111-1111-4111-8111-111111111111" / "etc")
    place.snapshot("etc_20261101-140000_0003").symlink_to("../../11111111-1111-4111-8111-111111111111/etc")
    with catalog.open_catalog(place, zone=UTC) as opened:
        assert [each.name for each in opened.snapshots()] == [FIRST]
        assert list(opened.find(b"secret")) == []
