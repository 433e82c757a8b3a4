"""The entries on disk that count as snapshots."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from turku.storage.disk import history, snapshot_record
from turku.storage.disk.snapshot_record import SnapshotRecord
from turku.storage.disk.source_directory import SourceDirectory

PARIS = ZoneInfo("Europe/Paris")
HELSINKI = ZoneInfo("Europe/Helsinki")
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.fixture
def place(tmp_path: Path) -> SourceDirectory:
    place = SourceDirectory(tmp_path, "etc")
    place.snapshots_dir.mkdir()
    return place


def test_a_source_without_snapshots_has_no_history(tmp_path: Path) -> None:
    place = SourceDirectory(tmp_path, "etc")
    assert history.stored_snapshots(place, UTC) == ()
    assert history.newest(place, UTC, now=NOW) is None


def test_names_of_all_ages_are_read_and_sorted_by_their_moments(place: SourceDirectory) -> None:
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


def test_hidden_names_links_and_files_are_no_snapshots(place: SourceDirectory) -> None:
    for name in (".deleting-etc_20260131-120000_0a1b", ".unfinished", ".committing"):
        place.snapshot(name).mkdir()
    place.latest.symlink_to("etc_20260131-120000_0a1b")
    place.record_path("etc_20260131-120000_0a1b").write_text("{}")
    assert history.stored_snapshots(place, UTC) == ()


def test_a_name_with_save_in_it_is_held(place: SourceDirectory) -> None:
    place.snapshot("etc_20260131-120000_0a1b.save").mkdir()
    assert history.stored_snapshots(place, UTC)[0].is_held


def test_a_record_is_read_back_as_it_was_written(place: SourceDirectory) -> None:
    place.snapshot("etc_20260131-120000_0a1b").mkdir()
    written = SnapshotRecord(
        "etc_20260131-120000_0a1b",
        "1424400000",
        datetime(2026, 1, 31, 12, tzinfo=PARIS),
        datetime(2026, 1, 31, 12, 5, 1, 500, tzinfo=PARIS),
    )
    written.write(place)
    assert snapshot_record.read(place, history.stored_snapshots(place, PARIS)[0].name) == written


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b'{"name": 1}', b'{"sync_begin": "x", "sync_finish": 3}'])
def test_a_record_that_is_missing_or_broken_leaves_the_snapshot_in_history(
    place: SourceDirectory, content: bytes | None
) -> None:
    place.snapshot("1424400000").mkdir()
    if content is not None:
        place.record_path("1424400000").write_bytes(content)
    (stored,) = history.stored_snapshots(place, UTC)
    assert snapshot_record.read(place, stored.name) is None


def add(place: SourceDirectory, name: str, begin: datetime | None = None) -> None:
    """A snapshot, with a record where ``begin`` is given."""
    place.snapshot(name).mkdir()
    if begin is not None:
        SnapshotRecord(name, None, begin, begin).write(place)


def test_in_the_hour_that_comes_twice_the_record_s_time_gives_the_order(place: SourceDirectory) -> None:
    # On 25 October 2026 clocks in Helsinki go from 04:00 back to 03:00, at 01:00 UTC.
    first, second = datetime(2026, 10, 25, 0, 50, tzinfo=UTC), datetime(2026, 10, 25, 1, 10, tzinfo=UTC)
    assert (f"{first.astimezone(HELSINKI):%H%M}", f"{second.astimezone(HELSINKI):%H%M}") == ("0350", "0310")
    add(place, "etc_20261025-035000_aaaa", first.astimezone(HELSINKI))
    add(place, "etc_20261025-031000_bbbb", second.astimezone(HELSINKI))
    found = history.stored_snapshots(place, HELSINKI)
    assert [(each.name, each.moment) for each in found] == [
        ("etc_20261025-035000_aaaa", first),
        ("etc_20261025-031000_bbbb", second),
    ]
    newest = history.newest(place, HELSINKI, now=NOW)
    assert newest is not None
    assert newest.moment == second


def test_a_snapshot_dated_in_the_future_is_neither_newest_nor_base(place: SourceDirectory) -> None:
    add(place, "etc_20261123-120000_aaaa", NOW - timedelta(days=1))
    add(place, "etc_20360101-120000_bbbb")
    for found in (history.newest(place, UTC, now=NOW), history.base(place, UTC, now=NOW)):
        assert found is not None
        assert found.name == "etc_20261123-120000_aaaa"


def test_a_clock_set_back_by_some_seconds_makes_no_snapshot_doubtful(place: SourceDirectory) -> None:
    add(place, "etc_20261124-115900_aaaa")
    add(place, "etc_20261124-120100_bbbb")
    newest = history.newest(place, UTC, now=NOW)
    assert newest is not None
    assert newest.name == "etc_20261124-120100_bbbb"


def test_the_last_date_counts_where_all_are_in_the_future(place: SourceDirectory) -> None:
    add(place, "etc_20360101-120000_aaaa")
    add(place, "etc_20360102-120000_bbbb")
    newest = history.newest(place, UTC, now=NOW)
    assert newest is not None
    assert newest.name == "etc_20360102-120000_bbbb"


def test_one_found_in_the_future_stays_doubtful_when_its_date_has_come(place: SourceDirectory) -> None:
    add(place, "etc_20261125-120000_aaaa")
    assert history.note_dates_ahead(place, UTC, now=NOW) == ("etc_20261125-120000_aaaa",)
    add(place, "etc_20261124-120000_bbbb", NOW)
    later = NOW + timedelta(days=2)
    assert history.note_dates_ahead(place, UTC, now=later) == ()
    newest = history.newest(place, UTC, now=later)
    assert newest is not None
    assert newest.name == "etc_20261124-120000_bbbb"
