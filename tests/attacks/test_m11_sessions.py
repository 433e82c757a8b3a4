"""M11: one machine's key is used to hold sessions, and with them the storage's memory: by number, by kind, for ever."""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.support.fleet import Fleet
from tests.support.landed_restore import TEMPORARY_NAME
from tests.support.ordered_storage import OrderedStorage, order, ordered_storage
from tests.support.processes import command_lines
from tests.support.sshd import free_port
from tests.support.storage_host import AgentSide

from turku.core import command, lock
from turku.core.cancellation import Cancellation, Cancelled
from turku.demo import programs as programs_of_ours
from turku.errors import LockHeld, MalformedMessage, RestoreFailed
from turku.protocol.jsonlines import JsonLines
from turku.protocol.restore_messages import BrowseEnd
from turku.storage.config.defaults import DEFAULT_HISTORY_SESSIONS
from turku.storage.session import request as session_request
from turku.storage.session import restore_session, session_slots
from turku.storage.session.session_slots import SessionKind, SessionSlots

ASKED_FOR = 12
PAUSE_SECONDS = 0.2
"""sshd itself puts off those that come at the same moment."""
ACCESS_REQUEST = "/v2/storage_access_request"
OTHER_UUID = "0b9a6d5e-7f0c-4c58-9b6e-0f3c55e1a001"


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OrderedStorage]:
    directory = tmp_path_factory.mktemp("held")
    (directory / "source").mkdir()
    (directory / "source" / "file").write_text("content")
    with ordered_storage(directory, {"etc": directory / "source"}) as storage:
        storage.admit()
        storage.api.answers[ACCESS_REQUEST] = {"allowed": True}
        storage.session({"etc": order()})
        yield storage


@contextmanager
def session(storage: OrderedStorage, action: str, **request: Any) -> Iterator[AgentSide]:
    port = free_port()
    asked: Mapping[str, Any] = {"action": action, "port": port, **request}
    tunnel = f"{port}:127.0.0.1:{storage.daemon.port}"
    with storage.host.session(storage.key, "-R", tunnel, request=asked) as side:
        yield side


def file_restore(storage: OrderedStorage) -> AbstractContextManager[AgentSide]:
    return session(
        storage,
        "restore_files",
        module={"username": "u", "password": "p"},
        restore_files={"source": "etc", "temporary": TEMPORARY_NAME},
    )


def programs(storage: OrderedStorage) -> list[int]:
    """The storage's programs that serve its machine."""
    found = []
    for process, line in command_lines().items():
        words = line.split(b"\0")
        # Not the shell that sshd starts it with.
        if os.fsencode(storage.host.config_dir) in words and any(
            word.endswith(b"/turku-storage-ping") for word in words[:2]
        ):
            found.append(process)
    return found


def opened(stack: ExitStack, start: Callable[[], AbstractContextManager[AgentSide]]) -> list[AgentSide]:
    sides = []
    for _ in range(ASKED_FOR):
        sides.append(stack.enter_context(start()))
        time.sleep(PAUSE_SECONDS)
    return sides


def settled(sides: list[AgentSide], count: int, seconds: float = 30) -> list[AgentSide]:
    """Those that still go on, once no more than ``count`` do or the time is over."""
    deadline = time.monotonic() + seconds
    while True:
        alive = [side for side in sides if side.child.poll() is None]
        if len(alive) <= count or time.monotonic() > deadline:
            return alive
        time.sleep(0.1)


def gone(storage: OrderedStorage, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while programs(storage):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_m11_one_key_holds_two_restores_and_no_more(storage: OrderedStorage) -> None:
    gone(storage)
    with ExitStack() as stack:
        sides = opened(stack, lambda: session(storage, "restore"))
        alive = settled(sides, session_slots.RESTORE_SESSIONS)
        assert len(alive) == session_slots.RESTORE_SESSIONS
        assert len(programs(storage)) == session_slots.RESTORE_SESSIONS
        for side in sides:
            if side not in alive:
                assert side.wait() == LockHeld.exit_code, side.output
                assert "of this machine are open here" in side.output
                assert "hint: " in side.output
    gone(storage)


def test_m11_one_key_holds_four_browse_and_restore_sessions_and_no_more(storage: OrderedStorage) -> None:
    gone(storage)
    with ExitStack() as stack:
        sides = opened(stack, lambda: file_restore(storage))
        alive = settled(sides, DEFAULT_HISTORY_SESSIONS)
        assert len(alive) == DEFAULT_HISTORY_SESSIONS
        for side in alive:
            side.wait_for('"row":"plan"')
        refused = [side for side in sides if side not in alive]
        # Those that found no slot for reading are told on standard error, the others in the answer that agents read.
        assert all(
            '"row": "refusal", "code": "lock-held"' in side.output or "error [lock-held]" in side.output
            for side in refused
        )
        # All of them, once more: one that comes alone is told what is wrong in the words of an answer.
        with session(storage, "browse", browse={"listing": "snapshots", "sources": ["etc"]}) as side:
            side.wait()
            assert "4 sessions of this machine browse or restore here already" in side.output
            assert '"row": "refusal", "code": "lock-held"' in side.output
        assert storage.host.log.count("sessions of this machine browse or restore here") > 0
    gone(storage)


def test_m11_one_key_holds_four_sessions_that_ask_for_nothing(storage: OrderedStorage) -> None:
    gone(storage)
    with ExitStack() as stack:
        sides = opened(stack, lambda: storage.host.session(storage.key))
        alive = settled(sides, session_slots.UNREAD_SESSIONS)
        assert len(alive) == session_slots.UNREAD_SESSIONS
        refused = next(side for side in sides if side not in alive)
        assert "that have not sent a request" in refused.output
    gone(storage)


def test_m11_a_session_that_asks_for_nothing_yet_has_loaded_little(storage: OrderedStorage) -> None:
    gone(storage)
    with storage.host.session(storage.key):
        time.sleep(1.5)
        [process] = programs(storage)
        loaded = Path("/proc", str(process), "maps").read_text()
        assert "msgspec" not in loaded
        assert "_sqlite3" not in loaded
        assert proportional_mib(process) < 12


def proportional_mib(process: int) -> float:
    lines = Path("/proc", str(process), "smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def test_m11_one_checkin_goes_on_beside_a_restore_and_browsing(storage: OrderedStorage) -> None:
    gone(storage)
    with session(storage, "restore") as restore, file_restore(storage) as first, file_restore(storage) as second:
        restore.wait_for("Restore mode active")
        first.wait_for('"row":"plan"')
        second.wait_for('"row":"plan"')
        with session(storage, "browse", browse={"listing": "snapshots", "sources": ["etc"]}) as browsing:
            browsing.wait_for('"row":"browse-end"')
        before = len(list((storage.machine_dir / "etc.snapshots").glob("etc_*")))
        storage.session({"etc": order()})
        assert storage.reports["etc"]["success"]
        assert len(list((storage.machine_dir / "etc.snapshots").glob("etc_*"))) > before
        assert restore.child.poll() is None


def test_m11_restores_leave_half_of_all_sessions_to_backups(storage: OrderedStorage) -> None:
    gone(storage)
    storage.host.write_configuration(max_sessions=2)
    try:
        with session(storage, "restore") as restore:
            restore.wait_for("Restore mode active")
            with session(storage, "restore") as second:
                assert second.wait() == LockHeld.exit_code
                assert "serves as many sessions as it may at once (max_sessions: 2)" in second.output
            storage.session({"etc": order()})
            assert storage.reports["etc"]["success"]
    finally:
        storage.host.write_configuration(max_sessions=None)


def test_m11_a_restore_that_nobody_uses_ends_and_one_in_use_goes_on(storage: OrderedStorage) -> None:
    gone(storage)
    storage.host.write_configuration(restore_idle_seconds=3)
    try:
        port = free_port()
        tunnel = f"{port}:127.0.0.1:{storage.daemon.port}"
        request = {"action": "restore", "port": port}
        with storage.host.session(storage.key, "-R", tunnel, request=request) as side:
            side.wait_for("Restore mode active")
            with socket.create_connection(("127.0.0.1", port), 5) as connection:
                assert connection.recv(8) == b"@RSYNCD:"
                time.sleep(5)
                # Not ssh's own end: it goes on while a connection does.
                assert programs(storage)
            assert side.wait(15) == 0
            assert "nothing went through its tunnel for 3 s (restore_idle_seconds)" in side.output
    finally:
        storage.host.write_configuration(restore_idle_seconds=None)


def test_m11_no_restore_goes_on_for_longer_than_a_run_may(storage: OrderedStorage) -> None:
    gone(storage)
    storage.host.write_configuration(max_run_seconds=3)
    try:
        port = free_port()
        tunnel = f"{port}:127.0.0.1:{storage.daemon.port}"
        request = {"action": "restore", "port": port}
        with storage.host.session(storage.key, "-R", tunnel, request=request) as side:
            side.wait_for("Restore mode active")
            # In use all the time.
            with socket.create_connection(("127.0.0.1", port), 5):
                gone(storage)
            assert side.wait(15) == 0
            assert "lasted longer than 3 s (max_run_seconds)" in side.output
    finally:
        storage.host.write_configuration(max_run_seconds=None)


def test_m11_a_plan_that_nobody_approves_is_not_kept_for_long() -> None:
    assert restore_session.GO_TIMEOUT_SECONDS <= 600
    reading, writing = os.pipe()
    try:
        with pytest.raises(RestoreFailed, match="nobody confirmed the restore within"):
            session_request.read_go(reading, timeout_seconds=0.1)
    finally:
        os.close(reading)
        os.close(writing)


def sent_to_nobody(watched: Cancellation, **options: float) -> BaseException:
    """Return the error that ended the sending of more answers than fit into a pipe that nobody reads."""
    reading, writing = os.pipe()
    ended: list[BaseException] = []

    def send() -> None:
        try:
            with os.fdopen(writing, "wb") as stream:
                JsonLines(stream, watched, **options).send_many([BrowseEnd(snapshot="x" * 1000)] * 1000)
        except BaseException as error:
            ended.append(error)

    # Of its own, so that a sender that waits for ever fails this test alone.
    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    sender.join(10)
    os.close(reading)
    sender.join(10)
    [error] = ended
    return error


def test_m11_an_agent_that_takes_no_answers_is_not_waited_for_without_end() -> None:
    watched = Cancellation()
    error = sent_to_nobody(watched, stall_seconds=0.3)
    assert isinstance(error, TimeoutError)
    assert "took no answer for 0.3 s" in str(error)
    assert watched.is_cancelled


def test_m11_an_answer_that_waits_for_its_reader_ends_with_the_agent() -> None:
    watched = Cancellation()
    threading.Timer(0.3, watched.cancel).start()
    assert isinstance(sent_to_nobody(watched), Cancelled)


def test_m11_the_agent_shows_in_words_why_it_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with Fleet(tmp_path / "fleet") as fleet, ExitStack() as held:
        fleet.storage("primary")
        machine = fleet.machine("held", {"etc": {"path": str(source)}})
        lock_dir = tmp_path / "fleet" / "primary" / "lock"
        names = [f"session-{machine.uuid}-history-{number}" for number in range(4)]
        names += [f"session-{machine.uuid}-restore-{number}" for number in range(2)]
        for name in (*names, f"machine-{machine.uuid}"):
            held.enter_context(lock.exclusive(lock_dir, name))
        for program, words, sentence in (
            ("turku-agent", ["snapshots", "etc"], "4 sessions of this machine browse or restore here already"),
            ("turku-agent-ping", ["--restore"], "2 restores of this machine are open here already"),
            ("turku-agent-ping", [], "another session of this machine is running"),
        ):
            argv: list[str | Path] = [programs_of_ours.DIRECTORY / program, *words, "--config-dir", machine.config_dir]
            completed = command.run(argv, timeout_seconds=60, check=False)
            shown = "\n".join(completed.last_lines)
            assert completed.exit_code != 0
            assert sentence in shown
            assert "Traceback" not in shown


def test_m11_two_readers_that_find_two_actions_in_one_request_are_no_way_around_the_bounds(tmp_path: Path) -> None:
    content = b'{"action": "restore", "port": 50000}'
    with pytest.raises(MalformedMessage, match="two ways"):
        session_request.parse(content, SessionKind.CHECKIN)
    slots = SessionSlots(tmp_path / "locks", OTHER_UUID, at_once=4, history_at_once=1)
    with slots:
        slots.begin()
        slots.turn_to(SessionKind.HISTORY)
        with SessionSlots(tmp_path / "locks", OTHER_UUID, at_once=4, history_at_once=1) as other:
            other.begin()
            with pytest.raises(LockHeld):
                other.turn_to(SessionKind.HISTORY)
