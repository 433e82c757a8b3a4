"""The trash: what retention removed can be brought back, whatever a crash left of the way there."""

import argparse
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.support import storage_command
from tests.support.backed_up_machine import StorageClock, storage_configuration

from turku.core.configuration.declaration import with_values
from turku.errors import LockHeld, NotInHistory, NoVolume, UsageError
from turku.storage.commands import trash as trash_commands
from turku.storage.config.model import StorageConfig, Volume
from turku.storage.disk import history, snapshot_notes, source_lookup, trash
from turku.storage.disk.snapshot_record import SnapshotRecord
from turku.storage.disk.source_directory import SourceDirectory
from turku.storage.snapshots import MODES

UUID = "9bef0a75-5a9b-43f7-a66a-7e8c6d7ad91d"
NAME = "etc_20260131-120000_0a1b"
NOW = datetime(2026, 2, 10, 12, 0, 0, 5, tzinfo=UTC)


@pytest.fixture
def place(tmp_path: Path) -> SourceDirectory:
    place = SourceDirectory(tmp_path / "volume" / UUID, "etc")
    make_snapshot(place, NAME)
    return place


def make_snapshot(place: SourceDirectory, name: str) -> None:
    place.snapshot(name).mkdir(parents=True)
    (place.snapshot(name) / "file").write_text(name)
    SnapshotRecord(name, None, NOW, NOW).write(place)


def names(place: SourceDirectory) -> list[str]:
    return sorted(path.name for path in place.snapshots_dir.iterdir())


def test_a_trashed_snapshot_leaves_history_at_once_and_comes_back_whole(place: SourceDirectory) -> None:
    before = place.record_path(NAME).read_text()
    trashed = trash.put(place, NAME, now=NOW)
    assert history.stored_snapshots(place, UTC) == ()
    assert names(place) == [f".trash-{int(NOW.timestamp())}-{NAME}", f".trash-{int(NOW.timestamp())}-{NAME}.json"]
    assert trash.trashed_snapshots(place) == (trashed,)
    held_until = trash.restore(trashed, now=NOW, trash_days=2)
    assert names(place) == [NAME, f"{NAME}.json"]
    assert (place.snapshot(NAME) / "file").read_text() == NAME
    assert snapshot_notes.read(place, NAME).held_until == held_until == NOW + timedelta(days=7)
    restored = json.loads(place.record_path(NAME).read_text())
    del restored["held_until"]
    assert restored == json.loads(before)


def test_a_snapshot_in_history_is_not_replaced_by_one_from_the_trash(place: SourceDirectory) -> None:
    trashed = trash.put(place, NAME, now=NOW)
    make_snapshot(place, NAME)
    with pytest.raises(UsageError, match="in history already"):
        trash.restore(trashed, now=NOW, trash_days=7)


def test_a_run_killed_on_the_way_to_the_trash_leaves_nothing_over(place: SourceDirectory) -> None:
    stored = trash.TrashedSnapshot(place, NAME, NOW.replace(microsecond=0)).stored_name
    # After the first step.
    place.record_path(stored).hardlink_to(place.record_path(NAME))
    trash.remove_stray_records(place)
    assert names(place) == [NAME, f"{NAME}.json"]
    # Again, and then after the second one.
    place.record_path(stored).hardlink_to(place.record_path(NAME))
    place.snapshot(NAME).rename(place.snapshot(stored))
    MODES["link-dest"](place).collect()
    trash.remove_stray_records(place)
    assert names(place) == [stored, f"{stored}.json"]
    assert trash.trashed_snapshots(place)[0].name == NAME


def test_the_trash_goes_when_its_time_has_come(place: SourceDirectory) -> None:
    mode = MODES["link-dest"](place)
    trash.put(place, NAME, now=NOW)
    trash.empty(place, removed_until=NOW - timedelta(seconds=1))
    assert len(names(place)) == 2
    trash.empty(place, removed_until=NOW)
    assert names(place) == [f".deleting-.trash-{int(NOW.timestamp())}-{NAME}"]
    mode.collect()
    assert names(place) == []


def test_a_snapshot_without_a_record_goes_there_and_back(place: SourceDirectory) -> None:
    make_snapshot(place, "1424400000")
    place.record_path("1424400000").unlink()
    trash.restore(trash.put(place, "1424400000", now=NOW), now=NOW, trash_days=7)
    assert (place.snapshot("1424400000") / "file").is_file()
    assert snapshot_notes.read(place, "1424400000").held_until is not None


# --- the commands


@pytest.fixture
def storage(tmp_path: Path, place: SourceDirectory) -> StorageConfig:
    return storage_configuration(tmp_path / "storage", volumes={"data": {"path": str(tmp_path / "volume")}})


def said(storage: StorageConfig, *arguments: str) -> str:
    exit_code, text = storage_command.run(storage, *arguments, clock=StorageClock())
    assert exit_code == 0
    return text.rstrip("\n")


def test_the_operator_lists_restores_and_empties(storage: StorageConfig, place: SourceDirectory) -> None:
    assert said(storage, "trash", "list") == "the trash is empty"
    trash.put(place, NAME, now=NOW)
    assert NAME in said(storage, "trash", "list", "--machine", UUID, "--source", "etc")
    [listed] = json.loads(said(storage, "trash", "list", "--json"))
    assert (listed["machine"], listed["source"], listed["snapshot"]) == (UUID, "etc", NAME)
    restored = said(storage, "trash", "restore", NAME)
    assert restored.startswith(
        f"{NAME} of etc is in the history again. Retention does not remove it before 2026-02-07 12:"
    )
    assert (place.snapshot(NAME) / "file").is_file()
    trash.put(place, NAME, now=StorageClock().moment - timedelta(days=1))
    with pytest.raises(UsageError, match="cannot be brought back"):
        said(storage, "trash", "empty")
    assert "0 snapshots removed" in said(storage, "trash", "empty", "--older-than", "2")
    assert "1 snapshot removed" in said(storage, "trash", "empty", "--yes")
    assert names(place) == []


def test_the_trash_is_a_table_on_a_terminal(
    storage: StorageConfig, place: SourceDirectory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trash.put(place, NAME, now=NOW)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    options = argparse.Namespace(machine=None, source="etc", json=False)
    trash_commands._list(options, storage, StorageClock(), print)
    heading, row = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
    assert re.split(" {2,}", heading) == ["machine", "snapshot", "removed", "kept until"]
    trashed = storage.retention.trash_days
    until = f"{NOW + timedelta(days=trashed):%Y-%m-%d %H:%M}"
    assert re.split(" {2,}", row) == [UUID[:8], NAME, "2026-02-10 12:00", until]


def test_a_machine_is_found_by_its_name_too(storage: StorageConfig, place: SourceDirectory) -> None:
    storage.state.machines_dir.mkdir(parents=True)
    (storage.state.machines_dir / "shop-web-0").symlink_to(UUID)
    assert source_lookup.find_sources(storage, machine="shop-web-0") == (place,)
    for unknown in ("other", "../shop-web-0", "11111111-1111-4111-8111-111111111111"):
        with pytest.raises(NotInHistory):
            source_lookup.find_sources(storage, machine=unknown)
    with pytest.raises(NotInHistory, match="no history of source usr") as caught:
        source_lookup.find_sources(storage, source="usr")
    assert caught.value.hint == "there is etc"


def test_a_snapshot_that_is_not_in_the_trash_cannot_be_restored(storage: StorageConfig) -> None:
    with pytest.raises(NotInHistory, match="not in the trash"):
        said(storage, "trash", "restore", NAME)


def test_a_volume_that_is_missing_is_no_empty_history(storage: StorageConfig, place: SourceDirectory) -> None:
    trash.put(place, NAME, now=NOW)
    place.machine_dir.parent.rename(place.machine_dir.parent.with_name("away"))
    for words in ("snapshots", "ls etc", "trash list", f"trash restore {NAME}", "trash empty --yes", "quarantine list"):
        with pytest.raises(NoVolume, match="volume data: ") as caught:
            said(storage, *words.split())
        assert caught.value.hint.endswith("run: turku-storage accept-volume data (on the storage)")


def test_what_another_volume_has_is_shown_while_one_is_missing(
    storage: StorageConfig, place: SourceDirectory, tmp_path: Path
) -> None:
    lost = Volume(name="lost", path=tmp_path / "lost")
    both = with_values(storage, volumes=(*storage.disk.volumes, lost))
    assert f"{UUID}\tetc\t{NAME}" in said(both, "snapshots", "--machine", UUID)
    assert "file" in said(both, "ls", "etc")
    with pytest.raises(NotInHistory):
        said(both, "ls", "usr", "--machine", UUID)
    with pytest.raises(NoVolume, match="volume lost: "):
        said(both, "ls", "usr")


def test_a_name_that_several_sources_have_wants_its_machine(storage: StorageConfig, place: SourceDirectory) -> None:
    other = SourceDirectory(place.machine_dir, "usr")
    for each in (place, other):
        make_snapshot(each, "1424400000")
        trash.put(each, "1424400000", now=NOW)
    with pytest.raises(UsageError, match="several sources"):
        said(storage, "trash", "restore", "1424400000")
    said(storage, "trash", "restore", "1424400000", "--source", "usr")
    assert other.snapshot("1424400000").is_dir()


def test_no_command_changes_a_source_that_is_being_backed_up(storage: StorageConfig, place: SourceDirectory) -> None:
    trash.put(place, NAME, now=NOW)
    with source_lookup.locked(place), pytest.raises(LockHeld, match="is being backed up"):
        said(storage, "trash", "restore", NAME)


def test_the_operator_reviews_quarantined_snapshots(storage: StorageConfig, place: SourceDirectory) -> None:
    assert said(storage, "quarantine", "list") == "no snapshot is in quarantine"
    snapshot_notes.change(place, NAME, findings=("the source is empty",))
    shown = said(storage, "quarantine", "list")
    assert "waits for a decision" in shown
    assert "the source is empty" in shown
    assert "\tquarantined" in said(storage, "snapshots")
    [listed] = json.loads(said(storage, "quarantine", "list", "--json"))
    assert (listed["signs"], listed["review"]) == (["the source is empty"], None)
    assert "applies to etc again" in said(storage, "quarantine", "reject", "--machine", UUID, "--source", "etc")
    assert history.awaiting_review(place, UTC) == ()
    [row] = json.loads(said(storage, "snapshots", "--json"))
    assert (row["is_quarantined"], row["is_rejected"]) == (False, True)
    assert "\trejected" in said(storage, "snapshots")
    with pytest.raises(UsageError, match="no snapshot that waits"):
        said(storage, "quarantine", "accept", "--machine", UUID, "--source", "etc")
    # A person may find out later.
    said(storage, "quarantine", "accept", "--machine", UUID, "--source", "etc", NAME)
    assert snapshot_notes.read(place, NAME).is_good
    with pytest.raises(UsageError, match="not a quarantined snapshot"):
        said(storage, "quarantine", "reject", "--machine", UUID, "--source", "etc", "other")
