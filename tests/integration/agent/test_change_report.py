"""Changed entries named to a storage beside its session: when it asks, as far as is certain, and never in its way."""

import fcntl
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

from turku.agent.capture import change_report
from turku.agent.capture.change_report import ChangeReport, Moment
from turku.agent.capture.changed_entries import ChangeScan
from turku.agent.config import loading as configuration
from turku.agent.config.model import AgentConfig
from turku.agent.rsyncd.config_text import Module
from turku.agent.tunnel.storage_output import StorageOutput
from turku.protocol.machine.changed_entries_messages import CHANGED_ENTRIES_WANTED, LINES_LIMIT_BYTES, PATHS_LIMIT
from turku.storage.backup.changed_entries import ChangedEntries
from turku.storage.session.cancellation import SessionCancellation

SECOND = 1_000_000_000


class Machine:
    """An agent with sources ``a`` and ``b``, and its sessions with storages."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.paths = {name: directory / "sources" / name for name in ("a", "b")}
        for path in self.paths.values():
            (path / "sub").mkdir(parents=True)
            (path / "sub/file").touch()
        for name in ("config.d", "sources.d"):
            (directory / "etc" / name).mkdir(parents=True)
        keys = {"api_url": "https://turku.example.com/v1", "var_dir": str(directory / "var")}
        (directory / "etc/config.d/config.json").write_text(json.dumps(keys))
        self.agent = self.load()

    def load(self) -> AgentConfig:
        sources = {name: {"path": str(path)} for name, path in self.paths.items()}
        (self.directory / "etc/sources.d/sources.json").write_text(json.dumps(sources))
        return configuration.load(self.directory / "etc")

    def report(self, storage: str = "primary") -> ChangeReport:
        return ChangeReport(self.agent, storage, [Module(name, str(path)) for name, path in self.paths.items()])

    with_holes: dict[str, frozenset[bytes] | None]
    """The report to the storage of the last session."""

    def session(self, storage: str = "primary", *, ends_well: bool = True) -> dict[str, ChangedEntries | None]:
        """Return the report to the storage in a session, read by the storage's own reader."""
        report = self.report(storage)
        reading, writing = os.pipe()
        with os.fdopen(writing, "wb") as stream, SessionCancellation(reading, asked_sources=tuple(self.paths)) as watch:
            with asked(report, stream):
                changes = {name: watch.reported.of_source(name, 20) for name in self.paths}
                self.with_holes = {name: watch.reported.with_holes(name, 20) for name in self.paths}
                until(lambda: set(report._attempt.passed) == set(self.paths))
            assert not watch.is_cancelled
        os.close(reading)
        if ends_well:
            report.keep()
        return changes


@contextmanager
def asked(report: ChangeReport, stream: IO[bytes]) -> Iterator[None]:
    """A session whose storage asks."""
    output = StorageOutput("primary")
    report.prepare(output)
    with report.sent_to(stream):
        output.show_line(CHANGED_ENTRIES_WANTED)
        yield


def until(reached: Callable[[], Any], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def settle() -> None:
    """Let the margin pass, so that only what changes from here on is later than it."""
    time.sleep(change_report._MARGIN_NS / SECOND + 0.1)


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "changed entries"]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(change_report, "_MARGIN_NS", SECOND // 10)
    return Machine(tmp_path)


def paths(changes: ChangedEntries | None) -> set[bytes] | None:
    return None if changes is None else set(changes.paths)


def test_the_margin_is_longer_than_any_step_of_change_times() -> None:
    assert change_report._MARGIN_NS == 2 * SECOND


def test_a_storage_that_does_not_ask_is_sent_nothing(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    report = machine.report()
    reading, writing = os.pipe()
    output = StorageOutput("primary")
    with os.fdopen(writing, "wb") as stream:
        report.prepare(output)
        with report.sent_to(stream):
            output.show_line("[2020-10-01 06:40:59,439 primary] INFO: Source a: starting")
            time.sleep(0.3)
        report.keep()
    assert os.read(reading, 10) == b""
    os.close(reading)
    assert not (machine.agent.state.var_dir / "changed_entries").exists()
    assert capsys.readouterr().err.count("\n") == 1


def test_the_storages_question_is_not_shown(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.session()
    assert capsys.readouterr().err == ""


def test_nothing_can_be_reported_in_a_first_session_and_all_in_the_next(machine: Machine) -> None:
    settle()
    assert machine.session() == {"a": None, "b": None}
    settle()
    changes = machine.session()
    assert {name: paths(each) for name, each in changes.items()} == {"a": set(), "b": set()}
    (machine.paths["a"] / "sub/file").chmod(0o600)
    (machine.paths["b"] / b"\xff".decode("utf-8", "surrogateescape")).touch()
    changes = machine.session()
    assert {name: paths(each) for name, each in changes.items()} == {"a": {b"sub/file"}, "b": {b".", b"\xff"}}


def test_files_with_holes_are_reported_in_the_first_session_too(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.truncate(machine.paths["a"] / "sub/file", 100_000)
    for _ in range(2):
        machine.session()
        assert machine.with_holes == {"a": {b"sub/file"}, "b": frozenset()}
    monkeypatch.setattr(change_report, "PATHS_LIMIT", 2)
    for name in ("one", "two"):
        (machine.paths["a"] / name).touch()
        os.truncate(machine.paths["a"] / name, 100_000)
    machine.session()
    assert machine.with_holes == {"a": None, "b": frozenset()}


def test_changes_during_a_session_are_reported_in_the_next(machine: Machine) -> None:
    settle()
    machine.session()
    settle()
    report = machine.report()
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as stream, asked(report, stream):
        until(lambda: set(report._attempt.passed) == {"a", "b"})
        # The storage may have looked at it already, or not.
        (machine.paths["a"] / "sub/file").chmod(0o600)
    os.close(reading)
    report.keep()
    settle()
    assert paths(machine.session()["a"]) == {b"sub/file"}
    assert paths(machine.session()["a"]) == set()


def test_since_is_shortly_before_the_moment_that_the_storage_was_given(machine: Machine) -> None:
    first = machine.report()
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as stream, asked(first, stream):
        until(lambda: set(first._attempt.passed) == {"a", "b"})
    os.close(reading)
    first.keep()
    changes = machine.session()["a"]
    assert changes is not None
    assert changes.since_ns == first.moment.unix_ns - change_report._MARGIN_NS


def test_a_session_that_did_not_end_well_leaves_the_moment_of_the_one_before(machine: Machine) -> None:
    settle()
    machine.session()
    settle()
    (machine.paths["a"] / "sub/file").chmod(0o600)
    settle()
    for _ in range(2):
        assert paths(machine.session(ends_well=False)["a"]) == {b"sub/file"}
        settle()
    assert paths(machine.session()["a"]) == {b"sub/file"}
    assert paths(machine.session()["a"]) == set()


def test_moments_are_those_of_one_storage_and_one_path(machine: Machine, tmp_path: Path) -> None:
    machine.session()
    assert machine.session("other")["a"] is None
    (tmp_path / "elsewhere").mkdir()
    machine.paths["a"] = tmp_path / "elsewhere"
    machine.agent = machine.load()
    changes = machine.session()
    assert changes["a"] is None
    assert changes["b"] is not None


def test_sources_that_are_not_due_keep_their_moment_and_those_that_are_gone_lose_it(machine: Machine) -> None:
    machine.session()
    both = dict(machine.paths)
    machine.paths = {"a": both["a"]}
    machine.session()
    assert set(change_report.read_records(machine.agent.state, "primary")) == {"a", "b"}
    machine.agent = machine.load()
    machine.session()
    assert set(change_report.read_records(machine.agent.state, "primary")) == {"a"}


@pytest.mark.parametrize(
    "change",
    [
        lambda moment: Moment(moment.unix_ns + 3600 * SECOND, moment.boot_id, moment.boot_ns),
        lambda moment: Moment(moment.unix_ns - 3600 * SECOND, moment.boot_id, moment.boot_ns),
        lambda moment: Moment(moment.unix_ns, "another boot", moment.boot_ns),
        lambda moment: Moment(1, moment.boot_id, moment.boot_ns),
    ],
    ids=["set back", "set on", "started anew", "of 1970"],
)
def test_nothing_is_reported_where_the_clock_was_set_or_the_system_started_anew(
    machine: Machine, change: Callable[[Moment], Moment]
) -> None:
    machine.session()
    records = change_report.read_records(machine.agent.state, "primary")
    for name, record in records.items():
        records[name] = change_report.SourceRecord(record.path, change(record.moment), record.directories)
    change_report.write_records(machine.agent.state, "primary", records)
    assert machine.session() == {"a": None, "b": None}
    assert None not in machine.session().values()


def test_an_uncertain_source_is_not_reported_and_hides_no_other_source(machine: Machine) -> None:
    settle()
    machine.session()
    settle()
    os.rename(machine.paths["a"], machine.directory / "away")
    report = machine.report()
    reading, writing = os.pipe()
    with (
        os.fdopen(writing, "wb") as stream,
        SessionCancellation(reading, asked_sources=("a", "b")) as watch,
        asked(report, stream),
    ):
        assert watch.reported.of_source("a", 20) is None
        assert paths(watch.reported.of_source("b", 20)) == set()
    os.close(reading)
    report.keep()
    # The moment from before stays good: whatever changed since then is named.
    os.rename(machine.directory / "away", machine.paths["a"])
    (machine.paths["a"] / "sub/file").chmod(0o600)
    assert paths(machine.session()["a"]) == {b".", b"sub/file"}


# --- bounds


def test_more_than_fits_is_not_reported_and_is_no_reason_to_report_nothing_next_time(machine: Machine) -> None:
    settle()
    machine.session()
    settle()
    for number in range(PATHS_LIMIT):
        (machine.paths["a"] / f"file{number}").touch()
    (machine.paths["b"] / "new").touch()
    changes = machine.session()
    assert (changes["a"], paths(changes["b"])) == (None, {b".", b"new"})
    settle()
    machine.session()
    assert paths(machine.session()["a"]) == set()


def test_all_lines_together_are_bounded(machine: Machine) -> None:
    machine.session()
    for path in machine.paths.values():
        for number in range(PATHS_LIMIT // 4):
            (path / ("x" * 150 + str(number))).touch()
    report = machine.report()
    received = bytearray()
    reading, writing = os.pipe()

    def read() -> None:
        while chunk := os.read(reading, 65536):
            received.extend(chunk)

    reader = threading.Thread(target=read)
    reader.start()
    with os.fdopen(writing, "wb") as stream, asked(report, stream):
        until(lambda: received.count(b"\n") == 4, 60)
    reader.join()
    os.close(reading)
    assert 700_000 < len(received) < LINES_LIMIT_BYTES
    changes = [(line["type"], line["is_complete"]) for line in map(json.loads, received.splitlines())]
    both = [("changed-entries", True), ("files-with-holes", True)]
    assert changes == [*both, ("changed-entries", False), ("files-with-holes", True)]


# --- its end


def full_pipe() -> tuple[int, int]:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    os.write(writing, b"x" * 4096)
    return reading, writing


def test_a_storage_that_does_not_read_delays_nobody(machine: Machine) -> None:
    report = machine.report()
    reading, writing = full_pipe()
    with os.fdopen(writing, "wb") as stream:
        with asked(report, stream):
            time.sleep(0.3)
            begun = time.monotonic()
        assert time.monotonic() - begun < 1
        assert threads() == []
        # It is still the session's own: its end is what says that the agent is gone.
        os.read(reading, 4096)
        stream.write(b"on")
        stream.flush()
        assert os.read(reading, 10) == b"on"
    assert os.read(reading, 10) == b""
    os.close(reading)


def test_an_ssh_that_ended_is_no_trouble(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    report = machine.report()
    reading, writing = full_pipe()
    with os.fdopen(writing, "wb", closefd=False) as stream, asked(report, stream):
        time.sleep(0.1)
        os.close(reading)
        until(lambda: not threads())
    os.close(writing)
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]


def test_a_pass_ends_with_its_session(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    original = ChangeScan.run

    def slow(self: ChangeScan) -> Any:
        while True:
            self.go_on()
            time.sleep(0.01)
            assert original is not None

    monkeypatch.setattr(ChangeScan, "run", slow)
    report = machine.report()
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as stream:
        with asked(report, stream):
            time.sleep(0.2)
            assert threads()
            begun = time.monotonic()
        assert time.monotonic() - begun < 1
    assert threads() == []
    os.close(reading)
    report.keep()
    assert change_report.read_records(machine.agent.state, "primary") == {}


def test_a_pass_that_hangs_on_a_dead_disk_does_not_hold_the_session(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(change_report, "_END_SECONDS", 0.2)
    released = threading.Event()
    monkeypatch.setattr(ChangeScan, "run", lambda _pass: released.wait())
    report = machine.report()
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as stream:
        with asked(report, stream):
            until(threads)
            begun = time.monotonic()
        assert time.monotonic() - begun < 1
    # What it holds is a descriptor of its own, so that whoever opens the next file is safe from it.
    others = os.pipe()
    released.set()
    until(lambda: not threads())
    os.set_blocking(others[0], False)
    with pytest.raises(BlockingIOError):
        os.read(others[0], 1)
    for descriptor in (reading, *others):
        os.close(descriptor)
