"""The record of the last sessions: what the coordinator is told of it, once."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from msgspec import UNSET
from tests.unit.agent.conftest import Write

from turku.agent.config.loading import load
from turku.agent.config.model import AgentState
from turku.agent.state import session_record
from turku.agent.state.session_record import ADMISSION_GRACE, SessionResult
from turku.errors import NotAdmitted, StorageUnreachable, TurkuError

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def state(write: Write) -> AgentState:
    return load(write()).state


def note(state: AgentState, error: TurkuError | None, now: datetime = NOW, storage: str = "primary") -> None:
    session_record.note(state, [SessionResult(storage, ["etc"], error)], configured=["etc", "home"], now=now)


def told(state: AgentState, now: datetime = NOW) -> object:
    """Return the failures that the next checkin tells, which then are known."""
    record = session_record.read(state)
    failures = session_record.failures_to_tell(record, now=now)
    if failures is UNSET:
        return None
    session_record.note_reported(state, record, now=now)
    return [(each.storage, each.kind, each.reason, each.sources, each.seconds_ago) for each in failures]


def test_nothing_is_told_of_a_machine_whose_sessions_work(state: AgentState) -> None:
    assert told(state) is None
    note(state, None)
    assert told(state) is None


def test_a_failure_is_told_once_and_so_is_its_end(state: AgentState) -> None:
    note(state, StorageUnreachable("no route"))
    assert told(state, NOW + MINUTE) == [("primary", "storage-unreachable", "no route", ["etc"], 60.0)]
    note(state, StorageUnreachable("no route"), NOW + 5 * MINUTE)
    assert told(state, NOW + 6 * MINUTE) is None
    note(state, StorageUnreachable("refused"), NOW + 10 * MINUTE)
    assert told(state, NOW + 11 * MINUTE) == [("primary", "storage-unreachable", "refused", ["etc"], 660.0)]
    note(state, None, NOW + 15 * MINUTE)
    assert told(state) == []
    assert told(state) is None


def test_a_new_machine_that_is_not_admitted_yet_is_no_failure_for_a_while(state: AgentState) -> None:
    note(state, NotAdmitted("not yet"))
    assert told(state, NOW + MINUTE) is None
    assert told(state, NOW + ADMISSION_GRACE) is not None


def test_a_machine_that_was_admitted_before_tells_at_once_that_it_is_not_any_more(state: AgentState) -> None:
    note(state, None, NOW - MINUTE)
    note(state, NotAdmitted("no more"))
    assert told(state) is not None


def test_the_failure_of_a_storage_ends_when_another_has_backed_its_sources_up(state: AgentState) -> None:
    note(state, StorageUnreachable("gone"), storage="old")
    assert told(state) is not None
    session_record.note(state, [SessionResult("new", ["home"])], configured=["etc", "home"], now=NOW)
    assert told(state) is None
    note(state, None, storage="new")
    assert told(state) == []


def test_a_reason_is_one_bounded_line(state: AgentState) -> None:
    note(state, StorageUnreachable("\x1b[2J\n" + "x" * 9999))
    reason = session_record.read(state).failures()["primary"].reason
    assert reason.isprintable()
    assert len(reason) == 300


@pytest.mark.parametrize("content", ["", "{", '{"storages": 1}', "\udcff"])
def test_a_damaged_record_counts_as_empty(state: AgentState, content: str) -> None:
    state.var_dir.mkdir(exist_ok=True)
    Path(state.var_dir / "sessions.json").write_text(content, errors="surrogateescape")
    assert session_record.read(state).storages == {}
    note(state, StorageUnreachable("gone"))
    assert told(state) is not None
