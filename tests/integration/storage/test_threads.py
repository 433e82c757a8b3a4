"""A fault in any thread of a session ends that thread's work alone: nobody waits for it, and what is read goes on."""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest
from tests.support.backed_up_machine import BackedUpMachine, backed_up_machine, storage_configuration
from tests.support.catalog_oracle import assert_agrees, make_tree
from tests.support.collected_answers import CollectedAnswers
from tests.support.landed_restore import TEMPORARY_NAME
from tests.support.rsyncd import Rsyncd

from turku.core import command
from turku.protocol.messages import SourceCredentials
from turku.protocol.restore_messages import MODULE, FileRestoreRequest, RestoreEnd
from turku.storage.catalog import streaming
from turku.storage.catalog import sync as catalog_sync
from turku.storage.catalog.scan import SnapshotReader
from turku.storage.catalog.staging import Staging
from turku.storage.containment import watchdog
from turku.storage.fs import hardlink_copy
from turku.storage.registration import coordinator
from turku.storage.restore import plan, push
from turku.storage.restore.access_grants import AccessGrant, AccessRequest
from turku.storage.restore.history_view import HistoryView
from turku.storage.rsync import change_log
from turku.storage.rsync.change_log import ChangeLog
from turku.storage.session.cancellation import AgentDisconnected, SessionCancellation
from turku.storage.session.checkin import Heartbeat
from turku.storage.snapshots.assembly import HardlinkCopy, IncrementalFailed

SAYS_MUCH = ["sh", "-c", "yes | head -c 1000000; exit 7"]
"""More than a pipe holds."""


class Fault(Exception):
    """Nothing that any code foresees."""


def fail(*_arguments: Any, **_options: Any) -> Any:
    raise Fault("a fault of our own")


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[BackedUpMachine]:
    with backed_up_machine(tmp_path, volume=tmp_path / "storage" / "volume") as machine:
        make_tree(machine.source_dir)
        for number in range(3000):
            (machine.source_dir / f"one of many, with a long name, so that a pipe is filled {number}").touch()
        yield machine


@pytest.mark.parametrize("place", ["entry", "content", "add_deferred"])
def test_a_first_backup_whose_indexing_fails_is_made_and_indexed_in_the_end(
    machine: BackedUpMachine, place: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    main = threading.current_thread()
    owner = Staging if place == "add_deferred" else SnapshotReader
    real = getattr(owner, place)

    def fail_in_the_other_thread(*arguments: Any, **options: Any) -> Any:
        return (real if threading.current_thread() is main else fail)(*arguments, **options)

    monkeypatch.setattr(owner, place, fail_in_the_other_thread)
    outcome = machine.back_up()
    assert outcome.success, outcome.summary
    assert "the tree is read into the catalog after the transfer" in caplog.text
    monkeypatch.undo()
    assert_agrees(machine)


def test_a_backup_whose_catalog_fails_is_made(
    machine: BackedUpMachine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(catalog_sync, "_record", fail)
    outcome = machine.back_up()
    assert outcome.success, outcome.summary
    assert "the catalog was not updated" in caplog.text
    monkeypatch.undo()
    assert_agrees(machine, with_checksums=False)


@pytest.mark.parametrize("is_complete", [True, False], ids=["complete", "incomplete"])
def test_the_indexer_has_ended_before_its_connection_is_used(
    machine: BackedUpMachine, is_complete: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite ended the whole process when the backup closed the connection that the indexer used."""
    begun = threading.Event()
    running: list[list[str]] = []
    content = SnapshotReader.content

    def read_slowly(*arguments: Any, **options: Any) -> Any:
        if not begun.is_set():
            begun.set()
            time.sleep(1)
        return content(*arguments, **options)

    def look_and_fail(*_arguments: Any) -> Any:
        running.append([thread.name for thread in threading.enumerate() if thread.name == streaming.THREAD_NAME])
        fail()

    monkeypatch.setattr(SnapshotReader, "content", read_slowly)
    monkeypatch.setattr(catalog_sync, "_record", look_and_fail)
    if not is_complete:
        monkeypatch.setattr(
            ChangeLog, "lists_every_change", property(lambda _self: False, lambda _self, _value: None), raising=False
        )
    outcome = machine.back_up()
    assert outcome.success, outcome.summary
    assert begun.is_set()
    assert running == [[]]
    monkeypatch.undo()
    assert_agrees(machine, with_checksums=False)


@pytest.mark.parametrize("place", ["add_line", "parse"])
def test_a_backup_whose_lines_are_not_understood_any_further_is_made(
    machine: BackedUpMachine, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _round in range(2):
        if place == "add_line":
            monkeypatch.setattr(ChangeLog, "add_line", fail)
        else:
            monkeypatch.setattr(change_log, "parse", fail)
        outcome = machine.back_up()
        assert outcome.success, outcome.summary
        monkeypatch.undo()
        (machine.source_dir / "file").write_text("new")
    assert_agrees(machine, with_checksums=False)


def test_output_that_a_failed_reader_leaves_is_read_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    def read(stream: IO[bytes]) -> None:
        stream.read(10)
        fail()

    with command.start(SAYS_MUCH, stdout=True) as child:
        with watchdog.output_reader(child, read) as reader:
            assert child.wait(60) == 7
        assert not reader.is_alive()
    assert "the rest of it is ignored" in caplog.text


def test_output_that_a_reader_ignores_is_read_all_the_same() -> None:
    with command.start(SAYS_MUCH, stdout=True) as child, watchdog.output_reader(child, lambda _stream: None):
        assert child.wait(60) == 7


def test_a_session_that_cannot_watch_its_agent_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    read_end, write_end = os.pipe()
    monkeypatch.setattr(os, "read", fail)
    try:
        with SessionCancellation(read_end) as agent:
            os.write(write_end, b"x")
            with pytest.raises(AgentDisconnected, match="could not be watched"):
                agent.wait(60)
    finally:
        os.close(read_end)
        os.close(write_end)


def test_a_heartbeat_that_fails_is_followed_by_the_next_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[None] = []

    def call(*_arguments: Any) -> Any:
        calls.append(None)
        fail()

    monkeypatch.setattr(coordinator.Coordinator, "call", call)
    with Heartbeat(
        storage_configuration(tmp_path), "9bef0a75-5a9b-43f7-a66a-7e8c6d7ad91d", pause_seconds=0.01
    ) as beats:
        beats.begin(["etc"])
        until(lambda: len(calls) > 2)


def test_a_copy_of_the_base_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "base").mkdir()
    monkeypatch.setattr(hardlink_copy, "link_tree", fail)
    with HardlinkCopy(tmp_path / "base", tmp_path / "tree") as made, pytest.raises(IncrementalFailed, match="Fault"):
        made.finish()


def test_a_backup_whose_copy_of_the_base_fails_is_made_in_full(
    machine: BackedUpMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert machine.back_up().success
    (machine.source_dir / "file").write_text("new")
    monkeypatch.setattr(hardlink_copy, "link_tree", fail)
    outcome = machine.back_up()
    assert (outcome.success, outcome.strategy) == (True, "full")
    assert "a fault of our own" in outcome.strategy_reason


@pytest.mark.parametrize("place", ["parse", "manifest_entry"])
def test_a_restore_that_can_no_longer_be_reported_is_sent(
    machine: BackedUpMachine,
    tmp_path: Path,
    place: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert machine.back_up().success
    uuid = machine.machine_dir.name
    view = HistoryView(
        machine.storage, AccessGrant(uuid, "etc", AccessRequest(uuid, "restore", "etc")), clock=machine.clock
    )
    target = tmp_path / "target"
    (target / TEMPORARY_NAME).mkdir(parents=True)
    collected = CollectedAnswers()
    monkeypatch.setattr(change_log if place == "parse" else plan, place, fail)
    with (
        Rsyncd(tmp_path / "target-daemon", {MODULE: target}, read_only=False) as daemon,
        plan.prepared(machine.storage, view, FileRestoreRequest("etc", TEMPORARY_NAME)) as (prepared, _answer),
    ):
        credentials = SourceCredentials(daemon.username, daemon.password)
        push.push(machine.storage, prepared, collected.answers, port=daemon.port, credentials=credentials)
    assert "the manifest cannot be sent any further" in caplog.text
    end = collected.read()[-1]
    assert isinstance(end, RestoreEnd)
    assert end.rsync_exit_code == 0
    assert len(list(target.iterdir())) == len(list(machine.source_dir.iterdir())) + 1


@pytest.fixture(autouse=True)
def reported_faults(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
