"""``turku-storage retention``: what stays, by which rules, until when, and what is removed."""

import argparse
import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.support import storage_command
from tests.support.backed_up_machine import StorageClock, order, storage_configuration

from turku.errors import InvalidValue, LockHeld
from turku.storage.config.model import StorageConfig
from turku.storage.disk import history, retention_rules, retention_run, snapshot_notes, source_lookup, trash
from turku.storage.disk.source_directory import SourceDirectory

UUID = "9bef0a75-5a9b-43f7-a66a-7e8c6d7ad91d"
CLOCK = StorageClock()
NOW = CLOCK.now()


@pytest.fixture
def place(tmp_path: Path) -> SourceDirectory:
    """A source with a snapshot of each of the last five days, the last one made an hour ago."""
    place = SourceDirectory(tmp_path / "volume" / UUID, "etc")
    for day in reversed(range(5)):
        add(place, NOW - timedelta(days=day, hours=1))
    return place


def add(place: SourceDirectory, moment: datetime) -> str:
    name = f"etc_{moment:%Y%m%d-%H%M%S}_0a1b"
    place.snapshot(name).mkdir(parents=True)
    place.record_path(name).write_text(json.dumps({"name": name, "sync_begin": moment.isoformat()}))
    snapshot_notes.change(place, name, period=timedelta(days=1))
    return name


def storage(tmp_path: Path, **keys: Any) -> StorageConfig:
    return storage_configuration(
        tmp_path / "storage", volumes={"data": {"path": str(tmp_path / "volume")}}, **{"trash_days": 7, **keys}
    )


def rows(storage: StorageConfig, *arguments: str) -> list[dict[str, Any]]:
    exit_code, text = storage_command.run(storage, "retention", "--json", *arguments, clock=CLOCK)
    assert exit_code == 0
    found: list[dict[str, Any]] = json.loads(text)
    return found


def names(place: SourceDirectory) -> list[str]:
    return [each.name for each in history.stored_snapshots(place, UTC)]


def test_a_dry_run_says_what_stays_and_until_when_and_changes_nothing(place: SourceDirectory, tmp_path: Path) -> None:
    retention_rules.record(place, order(retention="last 2 days, last 1 snapshots", period_seconds=86400.0))
    before = names(place)
    found = rows(storage(tmp_path), "--dry-run")
    assert [row["snapshot"] for row in found] == before
    assert [row["is_kept"] for row in found] == [False, False, False, True, True]
    assert not any(row["is_removed"] for row in found)
    assert found[3]["reasons"] == ["last 2 days"]
    assert found[3]["until"] == (NOW + timedelta(hours=23)).isoformat()
    assert found[4]["reasons"] == ["last 2 days", "last 1 snapshot", "newest good snapshot"]
    assert found[4]["until"] == (NOW + timedelta(hours=47)).isoformat()
    assert names(place) == before
    assert trash.trashed_snapshots(place) == ()


def test_without_dry_run_what_no_rule_keeps_goes_to_the_trash(place: SourceDirectory, tmp_path: Path) -> None:
    retention_rules.record(place, order(retention="last 2 days"))
    before = names(place)
    found = rows(storage(tmp_path), "--machine", UUID, "--source", "etc")
    assert [row["snapshot"] for row in found if row["is_removed"]] == before[:3]
    assert names(place) == before[3:]
    assert [each.name for each in trash.trashed_snapshots(place)] == before[:3]
    assert all(row["is_kept"] for row in rows(storage(tmp_path)))


def test_it_removes_what_a_run_would_remove(place: SourceDirectory, tmp_path: Path) -> None:
    sent = order(retention="last 1 days, earliest of 2 days")
    retention_rules.record(place, sent)
    loaded = storage(tmp_path)
    going = [row["snapshot"] for row in rows(loaded, "--dry-run") if not row["is_kept"]]
    removed = retention_run.apply(place, sent, loaded, now=NOW, newest_name=names(place)[-1])
    assert list(removed) == going != []


def test_the_floor_of_the_storage_and_that_of_the_coordinator_count(place: SourceDirectory, tmp_path: Path) -> None:
    retention_rules.record(place, order(retention="last 1 days", retention_floor="last 2 days"))
    found = rows(storage(tmp_path, retention_floor="last 3 days"), "-n")
    assert [row["reasons"] for row in found[:4]] == [[], [], ["last 3 days"], ["last 2 days", "last 3 days"]]


def test_nothing_goes_while_the_rules_are_not_known(place: SourceDirectory, tmp_path: Path) -> None:
    before = names(place)
    found = rows(storage(tmp_path, retention_floor="last 2 days"))
    assert [row["reasons"] for row in found[:4]] == [[retention_run.RULES_UNKNOWN]] * 3 + [["last 2 days"]]
    assert {row["until"] for row in found} == {None}
    assert {row["is_kept"] for row in rows(storage(tmp_path))} == {True}
    assert names(place) == before


def test_nothing_goes_while_a_snapshot_is_in_quarantine(place: SourceDirectory, tmp_path: Path) -> None:
    retention_rules.record(place, order(retention="last 1 days"))
    before = names(place)
    snapshot_notes.change(place, before[-1], findings=("the source is empty",))
    found = rows(storage(tmp_path))
    assert all(retention_run.QUARANTINE in row["reasons"] for row in found)
    assert {row["until"] for row in found} == {None}
    assert names(place) == before


def test_a_snapshot_restored_from_the_trash_says_so(place: SourceDirectory, tmp_path: Path) -> None:
    retention_rules.record(place, order(retention="last 1 days"))
    first = names(place)[0]
    held_until = NOW + timedelta(days=3)
    snapshot_notes.change(place, first, held_until=held_until)
    found = rows(storage(tmp_path), "-n")
    assert (found[0]["reasons"], found[0]["until"]) == ([retention_run.RESTORED], held_until.isoformat())


def test_a_name_that_holds_a_snapshot_has_no_end(place: SourceDirectory, tmp_path: Path) -> None:
    retention_rules.record(place, order(retention="last 1 days"))
    first = names(place)[0]
    place.snapshot(first).rename(place.snapshot(f"{first}-save"))
    [held] = [row for row in rows(storage(tmp_path)) if row["snapshot"].endswith("save")]
    assert (held["reasons"][0], held["until"]) == ("held by name", None)


def test_rules_that_are_not_understood_remove_nothing(place: SourceDirectory, tmp_path: Path) -> None:
    retention_rules.record(place, order(retention="keep the good ones"))
    before = names(place)
    with pytest.raises(InvalidValue, match="retention rule"):
        rows(storage(tmp_path))
    assert names(place) == before


def test_a_source_that_is_being_backed_up_is_left_alone(place: SourceDirectory, tmp_path: Path) -> None:
    retention_rules.record(place, order(retention="last 1 days"))
    other = SourceDirectory(place.machine_dir, "home")
    other.snapshots_dir.mkdir()
    before = names(place)
    with source_lookup.locked(place):
        with pytest.raises(LockHeld, match="being backed up"):
            rows(storage(tmp_path), "--source", "etc")
        exit_code, _text = storage_command.run(storage(tmp_path), "retention", clock=CLOCK)
        assert rows(storage(tmp_path), "-n")
    assert exit_code == 1
    assert names(place) == before


@pytest.mark.parametrize("content", ["", "[]", '{"retention": 5}', "\0"])
def test_a_record_that_cannot_be_read_is_none(place: SourceDirectory, content: str) -> None:
    place.retention_rules.write_text(content)
    assert retention_rules.read(place) is None


def test_the_record_is_written_only_when_it_changes(place: SourceDirectory) -> None:
    retention_rules.record(place, order(retention="last 1 days"))
    written = os.stat(place.retention_rules).st_ino
    retention_rules.record(place, order(retention="last 1 days"))
    assert os.stat(place.retention_rules).st_ino == written
    retention_rules.record(place, order(retention="last 2 days"))
    assert retention_rules.read(place) == retention_rules.SourceRules("last 2 days")


def test_a_source_without_history_has_no_record(tmp_path: Path) -> None:
    place = SourceDirectory(tmp_path, "etc")
    retention_rules.record(place, order())
    assert list(tmp_path.iterdir()) == []


def test_the_table_fits_into_80_columns(
    place: SourceDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from turku.storage.commands import retention

    retention_rules.record(place, order(retention="last 2 days, last 1 snapshots, earliest of 2 months"))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    rules = retention_rules.read(place)
    found = [(place, row) for row in retention_run.review(place, rules, storage(tmp_path), now=NOW)]
    options = argparse.Namespace(machine=None, source=None, json=False, dry_run=True)
    retention._show(found, options, storage(tmp_path), print)
    lines = capsys.readouterr().out.replace("\x1b[1m", "").replace("\x1b[0m", "").splitlines()
    assert lines[0].split() == ["machine", "snapshot", "action", "until", "kept", "by"]
    assert lines[1].startswith(f"{place.machine_dir.name[:8]}  etc_")
    assert all(len(line) <= 80 for line in lines)


def test_what_was_removed_is_shown_as_such(place: SourceDirectory, tmp_path: Path) -> None:
    retention_rules.record(place, order(retention="last 1 snapshots", period_seconds=86400.0))
    oldest = names(place)[0]
    for options, action in ((["--dry-run"], "remove"), ([], "removed")):
        _exit_code, text = storage_command.run(storage(tmp_path), "retention", *options, clock=CLOCK)
        assert f"\t{oldest}\t{action}\t" in text
