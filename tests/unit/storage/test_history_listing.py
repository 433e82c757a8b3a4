"""What counts as a snapshot on disk."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from turku.storage import history
from turku.storage.snapshots import record
from turku.storage.snapshots.place import SourcePlace
from turku.storage.snapshots.record import SnapshotRecord

PARIS = ZoneInfo("Europe/Paris")


@pytest.fixture
def place(tmp_path: Path) -> SourcePlace:
    place = SourcePlace(tmp_path, "etc")
    place.snapshots_dir.mkdir()
    return place


def test_a_source_without_snapshots_has_no_history(tmp_path: Path) -> None:
    place = SourcePlace(tmp_path, "etc")
    assert history.stored_snapshots(place, UTC) == ()
    assert history.newest(place, UTC) is None


def test_names_of_all_ages_are_read_and_sorted_by_their_moments(place: SourcePlace) -> None:
    for name in ("etc_20260131-120000_0a1b", "2015-02-20T03:20:36.5", "1424400000", "2015-02-20T03:20:36", "by hand"):
        place.snapshot(name).mkdir()
    found = history.stored_snapshots(place, PARIS)
    assert [stored.name for stored in found] == [
        "by hand",
        "2015-02-20T03:20:36",
        "2015-02-20T03:20:36.5",
        "1424400000",
        "etc_20260131-120000_0a1b",
    ]
    assert found[0].moment is None
    assert found[-1].moment == datetime(2026, 1, 31, 11, 0, tzinfo=UTC)


def test_hidden_names_links_and_files_are_no_snapshots(place: SourcePlace) -> None:
    for name in (".deleting-etc_20260131-120000_0a1b", ".unfinished", ".committing"):
        place.snapshot(name).mkdir()
    place.latest.symlink_to("etc_20260131-120000_0a1b")
    place.information("etc_20260131-120000_0a1b").write_text("{}")
    assert history.stored_snapshots(place, UTC) == ()


def test_a_name_with_save_in_it_is_held(place: SourcePlace) -> None:
    place.snapshot("etc_20260131-120000_0a1b.save").mkdir()
    assert history.stored_snapshots(place, UTC)[0].is_held


def test_a_record_is_read_back_as_it_was_written(place: SourcePlace) -> None:
    place.snapshot("etc_20260131-120000_0a1b").mkdir()
    written = SnapshotRecord(
        "etc_20260131-120000_0a1b",
        "1424400000",
        datetime(2026, 1, 31, 12, tzinfo=PARIS),
        datetime(2026, 1, 31, 12, 5, 1, 500, tzinfo=PARIS),
    )
    written.write(place)
    assert record.read(place, history.stored_snapshots(place, PARIS)[0].name) == written


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b'{"name": 1}', b'{"sync_begin": "x", "sync_finish": 3}'])
def test_a_record_that_is_missing_or_broken_leaves_the_snapshot_in_history(
    place: SourcePlace, content: bytes | None
) -> None:
    place.snapshot("1424400000").mkdir()
    if content is not None:
        place.information("1424400000").write_bytes(content)
    (stored,) = history.stored_snapshots(place, UTC)
    assert record.read(place, stored.name) is None
