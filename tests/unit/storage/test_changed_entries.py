"""The agent's lines about changed entries: taken as they come, bounded, and never a reason for a session to end."""

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from msgspec import UNSET

from turku.protocol.machine.changed_entries_messages import CHANGED_ENTRIES_WANTED, LINES_LIMIT_BYTES, PATHS_LIMIT
from turku.protocol.messages import SessionRequest, SourceCredentials
from turku.protocol.session_framing import SESSION_REQUEST_LIMIT_BYTES
from turku.storage.backup.changed_entries import ChangedEntries, ChangedEntriesReader
from turku.storage.session import server
from turku.storage.session.cancellation import AgentDisconnected, SessionCancellation

NEVER_SECONDS = 60.0
"""A wait that is expected to end much earlier."""


def line(source: str = "etc", *, paths: Any = ("a",), since_ns: Any = 7, is_complete: Any = True) -> bytes:
    content = {"since_ns": since_ns, "paths": list(paths), "is_complete": is_complete}
    return json.dumps({"type": "changed-entries", "source": source, **content}).encode() + b"\n"


def holes_line(source: str = "etc", *, paths: Any = ("disk",), is_complete: Any = True) -> bytes:
    content = {"type": "files-with-holes", "source": source, "paths": list(paths), "is_complete": is_complete}
    return json.dumps(content).encode() + b"\n"


def reader(*sources: str) -> ChangedEntriesReader:
    return ChangedEntriesReader(sources or ("etc", "home"))


@contextmanager
def watched(*sources: str) -> Iterator[tuple[SessionCancellation, int]]:
    """A watch of an agent that was asked for these sources, and the descriptor to be that agent with."""
    reading, writing = os.pipe()
    try:
        with SessionCancellation(reading, asked_sources=sources) as agent:
            yield agent, writing
    finally:
        os.close(reading)


# --- what is told


def test_paths_come_as_they_were_named() -> None:
    report = reader()
    odd = {"b64": "/w=="}
    report.feed(line(paths=[".", "sub/file", "bell\x07", odd]))
    assert report.of_source("etc", 0) == ChangedEntries(7, (b".", b"sub/file", b"bell\x07", b"\xff"))


def test_a_source_without_changes_has_a_line_too() -> None:
    report = reader()
    report.feed(line(paths=[]))
    assert report.of_source("etc", 0) == ChangedEntries(7, ())


def test_lines_come_in_pieces_of_any_size() -> None:
    content = line("etc", paths=["one"]) + line("home", paths=["two"])
    for size in (1, 2, 7, len(content)):
        report = reader()
        for start in range(0, len(content), size):
            report.feed(content[start : start + size])
        assert report.of_source("etc", 0) == ChangedEntries(7, (b"one",))
        assert report.of_source("home", 0) == ChangedEntries(7, (b"two",))


def test_a_line_without_its_end_is_ignored() -> None:
    report = reader()
    report.feed(line()[:-1])
    assert report.of_source("etc", 0) is None


def test_entries_that_may_not_be_all_are_none() -> None:
    report = reader()
    report.feed(line(paths=["a"], is_complete=False))
    begun = time.monotonic()
    assert report.of_source("etc", NEVER_SECONDS) is None
    assert time.monotonic() - begun < 5


def test_files_with_holes_come_beside_changed_entries() -> None:
    report = reader()
    report.feed(holes_line(paths=["disk", "sub/disk"]) + line() + holes_line("home", paths=[]))
    assert report.with_holes("etc", 0) == frozenset({b"disk", b"sub/disk"})
    assert report.with_holes("home", 0) == frozenset()
    assert report.of_source("etc", 0) == ChangedEntries(7, (b"a",))
    report = reader()
    report.feed(holes_line(is_complete=False, paths=[]) + line())
    assert report.with_holes("etc", NEVER_SECONDS) is None
    assert report.with_holes("another", NEVER_SECONDS) is None


def test_files_with_holes_are_waited_for_once() -> None:
    report = reader()
    assert report.with_holes("etc", 0.05) is None
    begun = time.monotonic()
    assert report.with_holes("etc", NEVER_SECONDS) is None
    assert time.monotonic() - begun < 5


# --- what is not as it should be


@pytest.mark.parametrize(
    "content",
    [
        b"\n",
        b"nonsense\n",
        b"\xff\xfe\n",
        b"[" * 100_000 + b"\n",
        b"null\n",
        b"{}\n",
        line(paths=[".."]),
        line(paths=["../etc/shadow"]),
        line(paths=["a/../../b"]),
        line(paths=["/etc/shadow"]),
        line(paths=[""]),
        line(paths=["a\0b"]),
        line(paths=["a//b"]),
        line(paths=["./a"]),
        line(paths=["a/"]),
        line(paths=[{"b64": "Li4vYQ=="}]),
        line(paths=[{"b64": "no base64"}]),
        line(paths=[7]),
        line(paths="ab").replace(b'["a", "b"]', b'"ab"'),
        line(paths=["a" * 20_000]),
        line(since_ns=-1),
        line(since_ns=2**63),
        line(since_ns="7"),
        line(is_complete=1),
        line("another source"),
        line("etc", paths=[], is_complete=False) * 2,
        holes_line(paths=["../etc/shadow"]),
        holes_line("another source"),
        holes_line(is_complete=False) * 2,
        line().replace(b"changed-entries", b"other"),
    ],
    ids=lambda content: repr(content[:40]),
)
def test_whatever_is_malformed_ends_the_reading_and_nothing_else(content: bytes) -> None:
    report = reader()
    report.feed(content)
    report.feed(line("home"))
    begun = time.monotonic()
    assert report.of_source("etc", NEVER_SECONDS) is None
    assert report.of_source("home", NEVER_SECONDS) is None
    assert time.monotonic() - begun < 5


def test_lines_before_a_malformed_line_count() -> None:
    report = reader()
    report.feed(line("home", paths=["x"]) + b"nonsense\n")
    assert report.of_source("home", 0) == ChangedEntries(7, (b"x",))


def test_paths_are_bounded_over_all_lines() -> None:
    report = reader()
    for second in (line, holes_line):
        report = reader()
        report.feed(line("etc", paths=["a"] * (PATHS_LIMIT - 1)))
        report.feed(second("home", paths=["a"] * 2))
        assert len((report.of_source("etc", 0) or ChangedEntries(0, ())).paths) == PATHS_LIMIT - 1
        assert report.of_source("home", 0) is None
        assert report.with_holes("home", 0) is None


def test_bytes_are_bounded_over_all_lines_and_a_line_without_end_takes_no_more_memory() -> None:
    report = reader()
    for _ in range(2 * LINES_LIMIT_BYTES // 1000):
        report.feed(b"x" * 1000)
    assert len(report._line) <= LINES_LIMIT_BYTES
    report.feed(b"\n" + line())
    assert report.of_source("etc", 0) is None


def test_a_storage_that_did_not_ask_reads_nothing() -> None:
    report = ChangedEntriesReader(())
    report.feed(line())
    assert report.of_source("etc", NEVER_SECONDS) is None
    assert report.limit_bytes == 0


# --- the session around it


def test_a_hint_is_waited_for() -> None:
    with watched("etc") as (agent, writing):
        timer = threading.Timer(0.2, lambda: os.write(writing, line()))
        timer.start()
        assert agent.reported.of_source("etc", NEVER_SECONDS) == ChangedEntries(7, (b"a",))
        timer.join()
        assert not agent.is_cancelled
        os.close(writing)


def test_several_threads_wait_for_the_hints_of_their_sources() -> None:
    names = [f"source{number}" for number in range(8)]
    found: dict[str, ChangedEntries | None] = {}
    with watched(*names) as (agent, writing):
        threads = [
            threading.Thread(
                target=lambda name=name: found.update({name: agent.reported.of_source(name, NEVER_SECONDS)})
            )
            for name in names
        ]
        for thread in threads:
            thread.start()
        for name in reversed(names):
            os.write(writing, line(name, paths=[name]))
        for thread in threads:
            thread.join(NEVER_SECONDS)
        os.close(writing)
    assert found == {name: ChangedEntries(7, (name.encode(),)) for name in names}


def test_the_wait_for_a_hint_ends_with_its_time() -> None:
    with watched("etc") as (agent, writing):
        begun = time.monotonic()
        assert agent.reported.of_source("etc", 0.1) is None
        assert 0.1 <= time.monotonic() - begun < 5
        os.close(writing)


def test_the_wait_for_a_hint_ends_with_the_agent() -> None:
    with watched("etc") as (agent, writing):
        threading.Timer(0.1, lambda: os.close(writing)).start()
        begun = time.monotonic()
        assert agent.reported.of_source("etc", NEVER_SECONDS) is None
        assert time.monotonic() - begun < 5
        with pytest.raises(AgentDisconnected):
            agent.check()


def test_the_wait_for_a_hint_ends_when_the_session_ends_itself() -> None:
    with watched("etc") as (agent, writing):
        threading.Timer(0.1, agent.cancel).start()
        begun = time.monotonic()
        assert agent.reported.of_source("etc", NEVER_SECONDS) is None
        assert time.monotonic() - begun < 5
        os.close(writing)


def test_an_agent_of_an_earlier_release_is_not_waited_for() -> None:
    with watched() as (agent, writing):
        begun = time.monotonic()
        assert agent.reported.of_source("etc", NEVER_SECONDS) is None
        assert time.monotonic() - begun < 5
        os.close(writing)


def test_malformed_lines_do_not_end_the_session_and_its_end_is_noticed_after_them() -> None:
    with watched("etc") as (agent, writing):
        os.write(writing, b"nonsense\n" * 100 + b"\0" * 10_000)
        assert agent.reported.of_source("etc", NEVER_SECONDS) is None
        assert not agent.is_cancelled
        os.close(writing)
        with pytest.raises(AgentDisconnected):
            agent.wait(NEVER_SECONDS)


@pytest.mark.parametrize(("asked", "allowed"), [((), 0), (("etc",), LINES_LIMIT_BYTES)])
def test_an_agent_that_goes_on_sending_is_as_good_as_gone(asked: tuple[str, ...], allowed: int) -> None:
    with watched(*asked) as (agent, writing):
        left = SESSION_REQUEST_LIMIT_BYTES + allowed
        while left:
            left -= os.write(writing, b"x" * min(left, 16_384))
        time.sleep(0.3)
        assert not agent.is_cancelled
        os.write(writing, b"x")
        with pytest.raises(AgentDisconnected):
            agent.wait(NEVER_SECONDS)
        os.close(writing)


@pytest.mark.parametrize(
    ("moment_ns", "sources", "asked"), [(None, ["etc"], False), (7, ["etc"], True), (0, ["etc"], True), (7, [], False)]
)
def test_only_an_agent_that_can_report_is_asked(
    moment_ns: int | None, sources: list[str], asked: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    request = SessionRequest(
        action="checkin",
        port=50000,
        sources=dict.fromkeys(sources, SourceCredentials("user", "password")),
        moment_ns=UNSET if moment_ns is None else moment_ns,
    )
    assert server._ask_for_changed_entries(request) == (tuple(sources) if asked else ())
    assert capsys.readouterr().err == (CHANGED_ENTRIES_WANTED + "\n") * asked
