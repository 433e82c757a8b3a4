"""An agent that makes holes gets the names of the files with holes. Otherwise rsync looks for holes in all files."""

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
from tests.support.landed_restore import TEMPORARY_NAME
from tests.support.rsyncd import Rsyncd

from turku.core.filesystem import holes
from turku.protocol.messages import SourceCredentials
from turku.protocol.restore_messages import MODULE, FileRestoreRequest, RestoreEnd, RestorePlan, WithHoles, path_bytes
from turku.storage.catalog import database
from turku.storage.restore import plan as restore_plan
from turku.storage.restore import push, recorded_entries
from turku.storage.restore.access_grants import AccessGrant, AccessRequest
from turku.storage.restore.history_view import HistoryView

OWN = "9bef0a75-5a9b-43f7-a66a-7e8c6d7ad91d"
KIBIBYTE = 1024
WITH_HOLES = ("small", "images/disk", "images/same")


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[BackedUpMachine]:
    with backed_up_machine(tmp_path, volume=tmp_path / "storage" / "volume") as machine:
        (machine.source_dir / "images").mkdir(mode=0o750)
        (machine.source_dir / "images").chmod(0o750)
        with (machine.source_dir / "images" / "disk").open("wb") as file:
            file.write(b"begin")
            file.truncate(200 * KIBIBYTE)
        os.link(machine.source_dir / "images" / "disk", machine.source_dir / "images" / "same")
        with (machine.source_dir / "small").open("wb") as file:
            file.truncate(12 * KIBIBYTE)
        # Zeros that were written are no hole, and no reason to make one.
        (machine.source_dir / "zeros").write_bytes(bytes(4096 * KIBIBYTE))
        (machine.source_dir / "images" / "dense").write_bytes(os.urandom(64 * KIBIBYTE))
        machine.with_holes = frozenset(map(os.fsencode, WITH_HOLES))
        assert machine.back_up().success
        yield machine


def restored(machine: BackedUpMachine, target: Path, **keys: Any) -> tuple[RestorePlan, RestoreEnd, list[bytes] | None]:
    """Restore into the target. Return the plan, the end, and the files in which the agent makes holes, if it does."""
    view = HistoryView(
        machine.storage, AccessGrant(OWN, "etc", AccessRequest(OWN, "restore", "etc")), clock=machine.clock
    )
    collected = CollectedAnswers()
    (target / TEMPORARY_NAME).mkdir(parents=True, exist_ok=True)
    request = FileRestoreRequest("etc", TEMPORARY_NAME, knows_xxh128=True, **{"digs_holes": True, **keys})
    with (
        Rsyncd(target.with_suffix(f".daemon-{os.urandom(4).hex()}"), {MODULE: target}, read_only=False) as receiving,
        restore_plan.prepared(machine.storage, view, request) as (prepared, plan),
    ):
        credentials = SourceCredentials(receiving.username, receiving.password)
        push.push(machine.storage, prepared, collected.answers, port=receiving.port, credentials=credentials)
    answers = collected.read()
    end = answers[-1]
    assert isinstance(end, RestoreEnd)
    assert end.rsync_exit_code == 0
    named = [path_bytes(path) for each in answers if isinstance(each, WithHoles) for path in each.paths]
    return plan, end, named if prepared.with_holes is not None else None


def has_holes(path: Path) -> bool:
    return holes.has_holes(path.stat())


def assert_restored(machine: BackedUpMachine, target: Path, *, have_holes: bool) -> None:
    left_out = f"--exclude=/{TEMPORARY_NAME}"
    assert trees.differences(machine.source_dir, target, left_out, "--omit-dir-times") == []
    assert [has_holes(target / name) for name in WITH_HOLES] == [have_holes] * 3


def test_the_agent_gets_their_names_and_the_room_that_they_take_until_then(
    machine: BackedUpMachine, tmp_path: Path
) -> None:
    plan, _end, named = restored(machine, tmp_path / "target")
    assert named == list(map(os.fsencode, WITH_HOLES))
    assert_restored(machine, tmp_path / "target", have_holes=False)
    assert not has_holes(tmp_path / "target" / "zeros")
    former, _end, _named = restored(machine, tmp_path / "other", digs_holes=False)
    assert plan.copy_bytes is not None
    assert former.copy_bytes is not None
    assert plan.copy_bytes >= former.copy_bytes + 200 * KIBIBYTE - 4 * KIBIBYTE


def test_an_agent_that_makes_none_gets_files_with_holes(machine: BackedUpMachine, tmp_path: Path) -> None:
    _plan, _end, named = restored(machine, tmp_path / "target", digs_holes=False)
    assert named is None
    assert_restored(machine, tmp_path / "target", have_holes=True)


def test_of_paths_the_files_below_them_are_named(machine: BackedUpMachine, tmp_path: Path) -> None:
    (machine.source_dir / "images" / "dense").write_bytes(os.urandom(4096 * KIBIBYTE))
    assert machine.back_up().success
    _plan, _end, named = restored(machine, tmp_path / "target", paths=["images"])
    assert named == [b"images/disk", b"images/same"]
    _plan, _end, named = restored(machine, tmp_path / "target", paths=["zeros"])
    assert named == []


def test_files_that_are_mostly_holes_come_with_them(machine: BackedUpMachine, tmp_path: Path) -> None:
    _plan, _end, named = restored(machine, tmp_path / "target", paths=["images/disk"])
    assert named is None
    assert has_holes(tmp_path / "target" / "images" / "disk")


def test_more_of_them_than_are_read_come_with_their_holes(
    machine: BackedUpMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorded_entries, "WITH_HOLES_LIMIT", 2)
    _plan, _end, named = restored(machine, tmp_path / "target")
    assert named is None
    assert_restored(machine, tmp_path / "target", have_holes=True)


def test_the_files_are_read_where_the_catalog_does_not_know(machine: BackedUpMachine, tmp_path: Path) -> None:
    with closing(sqlite3.connect(database.file_of(machine.place))) as connection:
        connection.execute("ALTER TABLE versions DROP COLUMN has_holes")
        connection.execute("PRAGMA user_version = 3")
        connection.commit()
    _plan, _end, named = restored(machine, tmp_path / "target")
    assert named == list(map(os.fsencode, WITH_HOLES))
    assert not list(machine.place.machine_dir.parent.rglob("*.broken"))


def test_a_lost_file_is_not_among_them(machine: BackedUpMachine, tmp_path: Path) -> None:
    (machine.newest_tree() / "small").unlink()
    _plan, end, named = restored(machine, tmp_path / "target")
    assert ([path_bytes(path) for path in end.lost], end.lost_count) == ([b"small"], 1)
    assert named == [b"images/disk", b"images/same"]
