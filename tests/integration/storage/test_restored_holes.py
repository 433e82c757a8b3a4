"""Files with holes go back first, by a run of rsync of their own; all others without a look for holes."""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.support import trees
from tests.support.backed_up_machine import BackedUpMachine, backed_up_machine
from tests.support.collected_answers import CollectedAnswers
from tests.support.rsyncd import Rsyncd

from turku.core import holes
from turku.protocol.messages import SourceCredentials
from turku.protocol.restore_messages import (
    MODULE,
    TEMPORARY_DIRECTORY,
    Manifest,
    RecoverEnd,
    RecoverRequest,
    path_bytes,
)
from turku.storage import recovery, recovery_transfer
from turku.storage.catalog import database
from turku.storage.history_view import HistoryView
from turku.storage.permit import Permitted, Wanted

OWN = "9bef0a75-5a9b-43f7-a66a-7e8c6d7ad91d"
KIBIBYTE = 1024
WITH_HOLES = ("images/disk", "images/same", "small")
FIRST, REST = "3 files with holes are sent first", "what has no holes is sent"
TOGETHER = "everything is sent, with a look for holes"


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[BackedUpMachine]:
    with backed_up_machine(tmp_path, volume=tmp_path / "storage" / "volume") as machine:
        (machine.source_dir / "images").mkdir(mode=0o750)
        (machine.source_dir / "images").chmod(0o750)
        with (machine.source_dir / "images" / "disk").open("wb") as file:
            file.write(b"begin")
            file.truncate(600 * KIBIBYTE)
        os.link(machine.source_dir / "images" / "disk", machine.source_dir / "images" / "same")
        with (machine.source_dir / "small").open("wb") as file:
            file.truncate(12 * KIBIBYTE)
        # Zeros that were written are no hole, and no reason to make one.
        (machine.source_dir / "zeros").write_bytes(bytes(256 * KIBIBYTE))
        (machine.source_dir / "images" / "dense").write_bytes(os.urandom(64 * KIBIBYTE))
        machine.with_holes = frozenset(map(os.fsencode, WITH_HOLES))
        assert machine.back_up().success
        yield machine


def restored(machine: BackedUpMachine, target: Path, **keys: Any) -> tuple[RecoverEnd, list[tuple[bytes, bool]]]:
    """Restore into the target; return how it ended, and what the agent is told of: each path, and whether it is sent."""
    view = HistoryView(machine.storage, Permitted(OWN, "etc", Wanted(OWN, "recover", "etc")), clock=machine.clock)
    collected = CollectedAnswers()
    (target / TEMPORARY_DIRECTORY).mkdir(parents=True, exist_ok=True)
    request = RecoverRequest("etc", knows_xxh128=True, **{"takes_two_connections": True, **keys})
    with (
        Rsyncd(target.with_suffix(f".daemon-{os.urandom(4).hex()}"), {MODULE: target}, read_only=False) as receiving,
        recovery.prepared(machine.storage, view, request) as prepared,
    ):
        credentials = SourceCredentials(receiving.username, receiving.password)
        recovery_transfer.push(
            machine.storage, prepared, collected.answers, port=receiving.port, credentials=credentials
        )
    answers = collected.read()
    end = answers[-1]
    assert isinstance(end, RecoverEnd)
    entries = [entry for each in answers if isinstance(each, Manifest) for entry in each.entries]
    return end, [(path_bytes(entry.path), entry.is_sent) for entry in entries]


def runs(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What each run sent."""
    words = [
        record.message.partition(": ")[2] for record in caplog.records if record.name.endswith("recovery_transfer")
    ]
    return [word for word in words if "sent" in word]


@pytest.fixture(autouse=True)
def told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def has_holes(path: Path) -> bool:
    return holes.has_holes(path.stat())


def assert_restored(machine: BackedUpMachine, target: Path) -> None:
    left_out = f"--exclude=/{TEMPORARY_DIRECTORY}"
    assert trees.differences(machine.source_dir, target, left_out, "--omit-dir-times") == []
    assert [has_holes(target / name) for name in WITH_HOLES] == [True] * 3
    assert (target / "images" / "disk").stat().st_ino == (target / "images" / "same").stat().st_ino


def test_files_with_holes_come_first_and_each_is_told_once(
    machine: BackedUpMachine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    end, told = restored(machine, tmp_path / "target")
    assert (end.rsync_exit_code, end.lost_count) == (0, 0)
    assert runs(caplog) == [FIRST, REST]
    names = [path for path, _is_sent in told]
    assert len(names) == len(set(names))
    assert set(map(os.fsencode, WITH_HOLES)) < set(names)
    assert_restored(machine, tmp_path / "target")
    assert not has_holes(tmp_path / "target" / "zeros")


def test_what_is_there_already_is_told_once_and_sent_no_more(
    machine: BackedUpMachine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _end, first = restored(machine, tmp_path / "target")
    (tmp_path / "target" / "images" / "dense").unlink()
    (tmp_path / "target" / "small").unlink()
    _end, second = restored(machine, tmp_path / "target")
    assert sorted(path for path, _is_sent in second) == sorted(path for path, _is_sent in first)
    assert {path for path, is_sent in second if is_sent} == {b"images/dense", b"small"}
    assert_restored(machine, tmp_path / "target")


def test_of_paths_those_with_holes_come_first(
    machine: BackedUpMachine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    end, told = restored(machine, tmp_path / "target", paths=["images"])
    assert end.rsync_exit_code == 0
    assert runs(caplog) == [FIRST.replace("3", "2"), REST]
    assert sorted(path for path, _is_sent in told) == [b"images/dense", b"images/disk", b"images/same"]
    assert trees.differences(machine.source_dir / "images", tmp_path / "target" / "images") == []
    assert has_holes(tmp_path / "target" / "images" / "disk")


def test_without_holes_there_is_one_run(
    machine: BackedUpMachine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    restored(machine, tmp_path / "target", paths=["zeros"])
    assert runs(caplog) == [REST]
    assert not has_holes(tmp_path / "target" / "zeros")


def test_what_was_deleted_there_goes_with_the_run_of_everything(machine: BackedUpMachine, tmp_path: Path) -> None:
    (tmp_path / "target" / "images").mkdir(parents=True)
    (tmp_path / "target" / "images" / "superfluous").write_text("to be deleted")
    end, _told = restored(machine, tmp_path / "target", delete=True)
    assert end.rsync_exit_code == 0
    assert_restored(machine, tmp_path / "target")


def test_an_agent_that_takes_one_connection_is_sent_everything_with_its_holes(
    machine: BackedUpMachine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    restored(machine, tmp_path / "target", takes_two_connections=False)
    assert runs(caplog) == [TOGETHER]
    assert_restored(machine, tmp_path / "target")


def test_more_of_them_than_are_told_apart_are_sent_with_everything(
    machine: BackedUpMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(recovery_transfer, "_WITH_HOLES_LIMIT", 2)
    restored(machine, tmp_path / "target")
    assert runs(caplog) == [TOGETHER]
    assert_restored(machine, tmp_path / "target")


def test_where_the_catalog_does_not_know_the_files_are_looked_at(
    machine: BackedUpMachine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(sqlite3.connect(database.file_of(machine.place))) as connection:
        connection.execute("ALTER TABLE versions DROP COLUMN has_holes")
        connection.execute("PRAGMA user_version = 3")
        connection.commit()
    restored(machine, tmp_path / "target")
    assert runs(caplog) == [FIRST, REST]
    assert_restored(machine, tmp_path / "target")
    assert not list(machine.place.machine_dir.parent.rglob("*.broken"))


def test_a_file_with_holes_that_is_lost_is_named(machine: BackedUpMachine, tmp_path: Path) -> None:
    (machine.newest_tree() / "small").unlink()
    end, told = restored(machine, tmp_path / "target")
    assert ([path_bytes(path) for path in end.lost], end.lost_count) == ([b"small"], 1)
    assert b"small" not in {path for path, _is_sent in told}


def test_a_first_run_that_cannot_read_something_is_followed_by_the_rest(
    machine: BackedUpMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = recovery_transfer.arguments

    def arguments(*words: Any, listed: str | None, **keys: Any) -> list[str]:
        made = real(*words, listed=listed, **keys)
        if listed is None:
            return made
        # As rsync ends when it could not read one of the files.
        return ["sh", "-c", '"$0" "$@"; exit 23', *made]

    monkeypatch.setattr(recovery_transfer, "arguments", arguments)
    end, _told = restored(machine, tmp_path / "target")
    assert end.rsync_exit_code == 23
    assert_restored(machine, tmp_path / "target")


def test_a_first_run_that_breaks_off_is_the_last(
    machine: BackedUpMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        recovery_transfer, "arguments", lambda *_words, **_keys: ["sh", "-c", "echo broken >&2; exit 12"]
    )
    end, told = restored(machine, tmp_path / "target")
    assert (end.rsync_exit_code, told) == (12, [])
    assert end.last_lines == ["broken"]
