"""Our notes about a snapshot, in the file that existing storages write and read too."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from turku.policy.anomaly import RunStats
from turku.policy.compression import Compression
from turku.storage.disk import history, snapshot_notes, snapshot_record
from turku.storage.disk.snapshot_notes import Notes, Review
from turku.storage.disk.snapshot_record import SnapshotRecord
from turku.storage.disk.source_directory import SourceDirectory

NAME = "etc_20260131-120000_0a1b"
MOMENT = datetime(2026, 1, 31, 12, tzinfo=UTC)
NOTES = Notes(
    period=timedelta(days=1),
    stats=RunStats(files_before=3, files=4, created=1, size_bytes=10),
    findings=("60% of the files were deleted",),
    review=Review.REJECTED,
    bytes_per_second=1e6,
    compress=Compression.ON,
    held_until=MOMENT,
)


@pytest.fixture
def place(tmp_path: Path) -> SourceDirectory:
    place = SourceDirectory(tmp_path, "etc")
    place.snapshot(NAME).mkdir(parents=True)
    return place


def test_notes_are_read_back_as_they_were_written(place: SourceDirectory) -> None:
    SnapshotRecord(NAME, None, MOMENT, MOMENT, NOTES).write(place)
    assert snapshot_notes.read(place, NAME) == NOTES
    assert snapshot_record.read(place, NAME) == SnapshotRecord(NAME, None, MOMENT, MOMENT, NOTES)


def test_a_snapshot_without_a_file_can_be_noted_of(place: SourceDirectory) -> None:
    snapshot_notes.change(place, NAME, held_until=MOMENT)
    assert snapshot_notes.read(place, NAME) == Notes(held_until=MOMENT)


def test_a_change_leaves_all_else_in_the_file(place: SourceDirectory) -> None:
    place.record_path(NAME).write_text(json.dumps({"name": NAME, "base": None, "theirs": [1], "findings": ["s"]}))
    snapshot_notes.change(place, NAME, review=Review.ACCEPTED)
    assert json.loads(place.record_path(NAME).read_text()) == {
        "name": NAME,
        "base": None,
        "theirs": [1],
        "findings": ["s"],
        "review": "accepted",
    }


def test_a_broken_value_costs_only_itself(place: SourceDirectory) -> None:
    broken = {
        "compress": "?",
        "period_seconds": "x",
        "stats": {"files": "many"},
        "held_until": "2026-01-01T00:00",
        "review": "?",
    }
    place.record_path(NAME).write_text(json.dumps({**broken, "findings": ["s"]}))
    assert snapshot_notes.read(place, NAME) == Notes(findings=("s",))
    place.record_path(NAME).write_text("[1, 2")
    assert snapshot_notes.read(place, NAME) == Notes()


@pytest.mark.parametrize(
    ("noted", "is_good", "needs_review"),
    [
        (Notes(), True, False),
        (Notes(findings=("s",)), False, True),
        (Notes(findings=("s",), review=Review.ACCEPTED), True, False),
        (Notes(findings=("s",), review=Review.REJECTED), False, False),
    ],
)
def test_a_quarantined_snapshot_is_good_only_once_accepted(noted: Notes, is_good: bool, needs_review: bool) -> None:
    assert (noted.is_good, noted.needs_review) == (is_good, needs_review)


def test_the_next_snapshot_is_not_built_upon_a_rejected_one(place: SourceDirectory) -> None:
    later = "etc_20260201-120000_0a1b"
    place.snapshot(later).mkdir()
    snapshot_notes.change(place, later, findings=("s",))
    base = history.base(place, UTC, now=datetime(2026, 2, 2, tzinfo=UTC))
    assert base is not None
    assert base.name == later
    snapshot_notes.change(place, later, review=Review.REJECTED)
    base = history.base(place, UTC, now=datetime(2026, 2, 2, tzinfo=UTC))
    assert base is not None
    assert base.name == NAME
