"""An agent that is killed while its session is in some phase of a backup: all of it ends at once, nothing is half made."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.backed_up_machine import backed_up_machine
from tests.support.ordered_storage import UUID, OrderedStorage, order, ordered_storage
from tests.support.processes import command_lines
from tests.support.sshd import free_port
from tests.support.storage_host import PROGRAMS, AgentSide

from turku.core.cancellation import Cancellation, Cancelled
from turku.core.cli.entry import EXIT_INTERNAL
from turku.storage.backup.run import back_up

LONGEST_SECONDS = 10.0
SLEEP = "3599"
# rsync as it is, but for a long sleep in the phase that is looked at.
PHASES = {
    "dry run": 'case " $* " in *" --checksum "*) ;; *" --dry-run "*) sleep {sleep};; esac; exec rsync "$@"',
    "transfer": 'case " $* " in *" --dry-run "*) ;; *" rsync://"*) sleep {sleep};; esac; exec rsync "$@"',
    "comparing": 'case " $* " in *" --checksum "*) sleep {sleep};; esac; exec rsync "$@"',
}
# The forced command, with the moment before a snapshot gets its name drawn out.
COMMITTING = """\
import sys, time
from pathlib import Path
from turku.storage import catalog, cli
original = catalog.record
def slow(*arguments, **options):
    original(*arguments, **options)
    Path({mark!r}, str(time.monotonic_ns())).touch()
    time.sleep(1.5)
catalog.record = slow
cli.ping_entry()
"""


@pytest.fixture(params=[1, 2], ids=["one source", "two sources"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OrderedStorage]:
    sources = {name: tmp_path / "sources" / name for name in ("a", "b")[: request.param]}
    for path in sources.values():
        path.mkdir(parents=True)
        for number in range(20):
            (path / f"file{number}").write_text(f"content {number}")
    with ordered_storage(tmp_path, sources) as storage:
        storage.admit()
        output = storage.session(dict.fromkeys(sources, order()))
        assert all(report["success"] for report in storage.reports.values()), output
        for path in sources.values():
            # One is changed, the rest can be compared.
            (path / "file0").write_text("another content")
        yield storage
        # What a failed test left.
        for process in sleepers():
            os.kill(process, signal.SIGKILL)


def sources(storage: OrderedStorage) -> list[str]:
    return sorted(path.name.removesuffix(".snapshots") for path in storage.machine_dir.glob("*.snapshots"))


def snapshots(storage: OrderedStorage) -> dict[str, list[str]]:
    return {
        name: sorted(path.name for path in (storage.machine_dir / f"{name}.snapshots").glob(f"{name}_*[!n]"))
        for name in sources(storage)
    }


def commands() -> dict[int, list[bytes]]:
    return {process: line.split(b"\0") for process, line in command_lines().items()}


def sleepers() -> list[int]:
    return [process for process, words in commands().items() if words[:2] == [b"sleep", sleep_seconds().encode()]]


def sleep_seconds() -> str:
    """Of this test process alone."""
    return f"{SLEEP}.{os.getpid()}"


def programs(storage: OrderedStorage) -> list[int]:
    return [process for process, words in commands().items() if os.fsencode(storage.host.config_dir) in words]


def until(reached: Callable[[], bool], side: AgentSide, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, side.output
        assert side.child.poll() is None, side.output
        time.sleep(0.02)


@contextmanager
def observed(storage: OrderedStorage, program: str) -> Iterator[Path]:
    """Yield the file in which the exit codes of the forced command are noted."""
    codes = storage.host.directory / "codes"
    script = storage.host.directory / "observed"
    script.write_text(f'#!/bin/sh\n{program} "$@"\necho $? >> {codes}\n')
    script.chmod(0o755)
    storage.host.write_configuration(authorized_keys_command=str(script))
    storage.admit()
    yield codes


@contextmanager
def checkin(storage: OrderedStorage) -> Iterator[AgentSide]:
    names = sources(storage)
    storage.api.answers["storage_ping_checkin"] = {
        "machine": {"uuid": UUID, "scheduled_sources": dict.fromkeys(names, order())}
    }
    storage.api.calls.clear()
    port = free_port()
    credentials = {"username": storage.daemon.username, "password": storage.daemon.password}
    request = {"verbose": True, "action": "checkin", "port": port, "sources": dict.fromkeys(names, credentials)}
    with storage.host.session(storage.key, "-R", f"{port}:127.0.0.1:{storage.daemon.port}", request=request) as side:
        yield side


def seconds_to_the_end(storage: OrderedStorage, side: AgentSide) -> float:
    """Return the time for which the session goes on after its agent was killed."""
    os.kill(side.child.pid, signal.SIGKILL)
    begun = time.monotonic()
    while programs(storage):
        assert time.monotonic() - begun < 60, storage.host.log
        time.sleep(0.02)
    return time.monotonic() - begun


def exit_codes(codes: Path) -> list[int]:
    deadline = time.monotonic() + 60
    while not codes.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    return [int(line) for line in codes.read_text().split()]


@pytest.mark.parametrize("phase", PHASES)
def test_an_agent_that_is_killed_ends_its_session_at_once(storage: OrderedStorage, phase: str) -> None:
    before = snapshots(storage)
    rsync = PHASES[phase].format(sleep=sleep_seconds())
    storage.host.write_configuration(rsync_command=["sh", "-c", rsync, "rsync"], compare_with_source_percent=100)
    with observed(storage, str(PROGRAMS / "turku-storage-ping")) as codes, checkin(storage) as side:
        until(lambda: len(sleepers()) == len(before), side)
        assert seconds_to_the_end(storage, side) < LONGEST_SECONDS
    assert sleepers() == []
    [code] = exit_codes(codes)
    # 120 is Python's, where nobody reads what it says at its end.
    assert code < 128
    assert code != EXIT_INTERNAL
    assert "internal error" not in storage.host.log
    assert "Traceback" not in storage.host.log
    after = snapshots(storage)
    assert set(storage.reports) == set(before)
    for name, report in storage.reports.items():
        if phase == "comparing":
            # The backup itself was made before.
            assert report["success"]
            assert len(after[name]) == len(before[name]) + 1
        else:
            assert not report["success"]
            assert "the agent ended the session" in report["summary"]
            assert after[name] == before[name]
    # The next session goes on from there.
    storage.host.write_configuration(rsync_command=None, compare_with_source_percent=None)
    storage.session(dict.fromkeys(before, order()))
    assert all(report["success"] for report in storage.reports.values())
    for name in before:
        assert (storage.machine_dir / f"{name}.snapshots" / "latest" / "file0").read_text() == "another content"


BROKEN = {
    # A stream that ends while the agent is still believed to be there.
    "stream": 'case " $* " in *" --dry-run "*) ;; *" rsync://"*) touch {mark}; exit 12;; esac; exec rsync "$@"',
    "dry run's stream": 'case " $* " in *" rsync://"*) touch {mark}; exit 30;; esac; exec rsync "$@"',
}


@pytest.mark.parametrize("where", BROKEN)
def test_an_agent_that_is_gone_is_named_where_a_broken_stream_is_noticed_first(
    storage: OrderedStorage, where: str
) -> None:
    before = snapshots(storage)
    mark = storage.host.directory / "broken"
    storage.host.write_configuration(
        rsync_command=["sh", "-c", BROKEN[where].format(mark=mark), "rsync"], sandbox="off"
    )
    with observed(storage, str(PROGRAMS / "turku-storage-ping")), checkin(storage) as side:
        until(mark.exists, side)
        seconds_to_the_end(storage, side)
    assert set(storage.reports) == set(before)
    for report in storage.reports.values():
        assert not report["success"]
        assert "the agent ended the session" in report["summary"]
    assert snapshots(storage) == before


def test_an_agent_that_is_gone_is_named_where_nobody_listens_any_more(tmp_path: Path) -> None:
    agent = Cancellation()
    with backed_up_machine(tmp_path) as machine:
        threading.Timer(0.3, agent.cancel).start()
        with pytest.raises(Cancelled):
            back_up(
                replace(machine.job(), rsync_port=free_port()), machine.storage, clock=machine.clock, cancellation=agent
            )


def test_an_agent_that_is_killed_just_before_the_commit_leaves_no_snapshot(storage: OrderedStorage) -> None:
    before = snapshots(storage)
    marks = storage.host.directory / "marks"
    marks.mkdir()
    script = storage.host.directory / "committing.py"
    script.write_text(COMMITTING.format(mark=str(marks)))
    with observed(storage, f"{PROGRAMS / 'python'} {script}") as codes, checkin(storage) as side:
        until(lambda: len(list(marks.iterdir())) == len(before), side)
        # A second and a half of it are the test's.
        assert seconds_to_the_end(storage, side) < LONGEST_SECONDS + 1.5
    [code] = exit_codes(codes)
    assert code < 128
    assert snapshots(storage) == before
    assert [report["success"] for report in storage.reports.values()] == [False] * len(before)


def test_a_program_that_is_ended_ends_all_its_sources_at_once(storage: OrderedStorage) -> None:
    before = snapshots(storage)
    rsync = PHASES["transfer"].format(sleep=sleep_seconds())
    storage.host.write_configuration(rsync_command=["sh", "-c", rsync, "rsync"])
    with observed(storage, str(PROGRAMS / "turku-storage-ping")) as codes, checkin(storage) as side:
        until(lambda: len(sleepers()) == len(before), side)
        begun = time.monotonic()
        for process, words in commands().items():
            if os.fsencode(storage.host.config_dir) in words and b"python" in words[0]:
                os.kill(process, signal.SIGTERM)
        side.wait(20)
        assert time.monotonic() - begun < LONGEST_SECONDS
    assert exit_codes(codes) == [128 + signal.SIGTERM]
    assert snapshots(storage) == before
