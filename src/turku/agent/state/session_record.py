"""The last sessions with each storage, in ``var_dir``: what ``status`` shows, and what the coordinator is told.

The coordinator knows only of sessions that a storage reports. One that came to nothing is known to this machine alone.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from turku.agent.config.model import AgentState
from turku.agent.state import var_dir
from turku.core import durable
from turku.core.log import one_line
from turku.errors import NotAdmitted, TurkuError
from turku.protocol.messages import SESSION_FAILURE_REASON_LIMIT, SESSION_FAILURES_LIMIT, SessionFailure

_FILE = "sessions.json"
_LIMIT_BYTES = 1024 * 1024
ADMISSION_GRACE = timedelta(minutes=15)
"""The time that a storage has to learn the key of a new machine before the coordinator is told. One that asks the
coordinator at each log-in takes no time, others some minutes."""


class FailedSession(msgspec.Struct, frozen=True):
    """A session that came to nothing, and its repetitions. ``kind`` is the code of its error. Times are UTC."""

    kind: str
    reason: str
    sources: tuple[str, ...]
    first: datetime
    last: datetime


class StorageRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """The last session that worked with one storage, and the one that failed since."""

    succeeded: datetime | None = None
    failed: FailedSession | None = None

    def is_awaiting_admission(self, *, now: datetime) -> bool:
        """Return True where the storage may not have learned of this new machine yet."""
        if self.succeeded is not None or self.failed is None:
            return False
        return self.failed.kind == NotAdmitted.code and now - self.failed.first < ADMISSION_GRACE


ReportedFailure = tuple[str, str, str, tuple[str, ...]]
"""Storage, kind, reason and sources of a failure."""


class SessionRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """The record of all storages by name. ``reported`` are the failures that the coordinator was told of last."""

    storages: dict[str, StorageRecord] = {}
    reported: tuple[ReportedFailure, ...] = ()

    def failures(self) -> dict[str, FailedSession]:
        """Return the failures that no session since has made good, by storage."""
        return {name: each.failed for name, each in self.storages.items() if each.failed is not None}


@dataclass(frozen=True)
class SessionResult:
    """The result of one session. ``error`` is None where it worked."""

    storage: str
    sources: Sequence[str]
    error: TurkuError | None = None


def read(configuration: AgentState) -> SessionRecord:
    """Return the record. One that is missing or damaged counts as empty."""
    try:
        content = durable.read_regular_file(configuration.var_dir / _FILE, limit_bytes=_LIMIT_BYTES)
        return msgspec.json.decode(content, type=SessionRecord)
    except (OSError, UnicodeError, msgspec.MsgspecError):
        return SessionRecord()


def note(
    configuration: AgentState, results: Iterable[SessionResult], *, configured: Iterable[str], now: datetime
) -> None:
    """Record the results of a run. A failure ends when its storage works, or its sources are backed up elsewhere.

    ``configured`` are this machine's sources. Raises DurableWriteFailed.
    """
    results = list(results)
    record = read(configuration)
    storages = dict(record.storages)
    for result in results:
        before = storages.pop(result.storage, StorageRecord())
        failed = None if result.error is None else _failed(result, result.error, before.failed, now=now)
        succeeded = now if result.error is None else before.succeeded
        storages[result.storage] = StorageRecord(succeeded, failed)
    backed_up = {source for result in results if result.error is None for source in result.sources}
    at_work = {result.storage for result in results}
    for name, each in storages.items():
        if name not in at_work and each.failed and not (set(each.failed.sources) & set(configured)) - backed_up:
            storages[name] = replace(each, failed=None)
    _write(configuration, replace(record, storages=dict(list(storages.items())[-SESSION_FAILURES_LIMIT:])))


def _failed(result: SessionResult, error: TurkuError, before: FailedSession | None, *, now: datetime) -> FailedSession:
    return FailedSession(
        error.code,
        one_line(error.message[:SESSION_FAILURE_REASON_LIMIT])[:SESSION_FAILURE_REASON_LIMIT],
        tuple(sorted(result.sources))[:SESSION_FAILURES_LIMIT],
        # A time from a clock that was ahead must not stay for ever.
        now if before is None else min(before.first, now),
        now,
    )


def failures_to_tell(record: SessionRecord, *, now: datetime) -> list[SessionFailure] | UnsetType:
    """Return the failures for the next checkin, or UNSET where the coordinator knows them all."""
    reported = _reported(record, now=now)
    if reported == record.reported:
        return UNSET
    failures = record.failures()
    return [
        SessionFailure(name, kind, reason, list(sources), max(0.0, (now - failures[name].first).total_seconds()))
        for name, kind, reason, sources in reported
    ]


def note_reported(configuration: AgentState, record: SessionRecord, *, now: datetime) -> None:
    """Record that the coordinator was told. Raises DurableWriteFailed."""
    _write(configuration, replace(record, reported=_reported(record, now=now)))


def _reported(record: SessionRecord, *, now: datetime) -> tuple[ReportedFailure, ...]:
    return tuple(
        (name, failed.kind, failed.reason, failed.sources)
        for name, failed in record.failures().items()
        if not record.storages[name].is_awaiting_admission(now=now)
    )


def _write(configuration: AgentState, record: SessionRecord) -> None:
    path = var_dir.directory(configuration) / _FILE
    text = msgspec.json.format(msgspec.json.encode(record), indent=4).decode() + "\n"
    var_dir.write_text(configuration, path, text)
