"""What we write of a snapshot beside what the contract asks for, under keys of our own in the same file.

An existing storage leaves them out of account. They are read one by one: what is missing or broken says nothing.
"""

from __future__ import annotations

import errno
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, TypeVar

import msgspec

from turku.policy.anomaly import RunStats
from turku.policy.compression import Compression
from turku.storage.disk.incompleteness import COMPLETE, Incompleteness
from turku.storage.disk.source_directory import SourceDirectory
from turku.storage.fs import tree as fs

LIMIT_BYTES = 512 * 1024
_NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EINVAL)
"""Errors that say that there is no such file, or none that we wrote; all others say nothing of it."""
_LOG = logging.getLogger(__name__)
_Value = TypeVar("_Value")


class Review(StrEnum):
    """What a person said of a suspicious snapshot."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"


@dataclass(frozen=True)
class Notes:
    """Notes about one snapshot."""

    period: timedelta | None = None
    """The period of the schedule it was made under (``retention.Snapshot.slot``)."""
    stats: RunStats | None = None
    findings: tuple[str, ...] = ()
    """What made it suspicious when it was made."""
    review: Review | None = None
    bytes_per_second: float | None = None
    """What came over the way from the machine when last enough came to tell."""
    compress: Compression = Compression.AUTO
    """What the source said when it was made; a restore goes the same way back."""
    strategy: str = ""
    """How the backup was made (``strategy.Strategy``)."""
    strategy_reason: str = ""
    """Why everything was looked at although there was a snapshot to build upon."""
    preserved: tuple[str, ...] = ()
    """The kinds of attributes that all its files were backed up with (``restore_messages.Settable``)."""
    held_until: datetime | None = None
    """Until when it is not pruned, as it was brought back from the trash; aware."""
    incomplete: Incompleteness = COMPLETE
    """What of the source could not be read."""
    machine_moment_ns: int | None = None
    """The machine's clock when the session began that made it, in Unix nanoseconds."""
    attributes_compared: datetime | None = None
    """When ACLs and extended attributes of all entries were last compared, for it or for one before it; aware."""
    found_in_future: datetime | None = None
    """When a backup found that its date lies in the future: the storage's clock was wrong, then or when it was made."""
    is_readable: bool = True
    """False where the disk did not give the notes: what they hold back is not known, so it is not pruned."""

    @property
    def is_good(self) -> bool:
        return not self.findings or self.review is Review.ACCEPTED

    @property
    def needs_review(self) -> bool:
        """Whether it is suspicious, and nobody has said yet what it is."""
        return bool(self.findings) and self.review is None

    def as_json(self) -> dict[str, Any]:
        """The keys of the file; those that say nothing are left out."""
        content = {
            "period_seconds": None if self.period is None else self.period.total_seconds(),
            "stats": None if self.stats is None else msgspec.to_builtins(self.stats),
            "findings": list(self.findings),
            "review": self.review,
            "bytes_per_second": self.bytes_per_second,
            "compress": None if self.compress is Compression.AUTO else self.compress,
            "incomplete": msgspec.to_builtins(self.incomplete),
            "machine_moment_ns": self.machine_moment_ns,
            "attributes_compared": None if self.attributes_compared is None else self.attributes_compared.isoformat(),
            "strategy": str(self.strategy),
            "strategy_reason": self.strategy_reason,
            "preserved": list(self.preserved),
            "held_until": None if self.held_until is None else self.held_until.isoformat(),
            "found_in_future": None if self.found_in_future is None else self.found_in_future.isoformat(),
        }
        return {key: value for key, value in content.items() if value}


NO_NOTES = Notes()
_KEYS = (
    "period_seconds",
    "stats",
    "findings",
    "review",
    "bytes_per_second",
    "compress",
    "incomplete",
    "machine_moment_ns",
    "attributes_compared",
    "strategy",
    "strategy_reason",
    "preserved",
    "held_until",
    "found_in_future",
)


def read(place: SourceDirectory, name: str) -> Notes:
    """The notes about a snapshot."""
    try:
        content = _content(place, name)
    except OSError as error:
        _LOG.warning("%s: cannot be read: %s", place.record_path(name), error.strerror or error)
        return Notes(is_readable=False)

    def value(key: str, read_one: Callable[[Any], _Value], default: _Value) -> _Value:
        try:
            return read_one(content[key]) if key in content else default
        except (ValueError, TypeError, OverflowError, msgspec.MsgspecError):
            return default

    return Notes(
        period=value("period_seconds", lambda seconds: timedelta(seconds=seconds), None),
        stats=value("stats", lambda stats: msgspec.convert(stats, RunStats), None),
        findings=value("findings", lambda findings: tuple(msgspec.convert(findings, list[str])), ()),
        review=value("review", Review, None),
        bytes_per_second=value("bytes_per_second", lambda rate: msgspec.convert(rate, float), None),
        compress=value("compress", Compression, Compression.AUTO),
        incomplete=value("incomplete", lambda found: msgspec.convert(found, Incompleteness), COMPLETE),
        machine_moment_ns=value("machine_moment_ns", lambda moment: msgspec.convert(moment, int), None),
        attributes_compared=value("attributes_compared", _moment, None),
        strategy=value("strategy", _text, ""),
        strategy_reason=value("strategy_reason", _text, ""),
        preserved=value("preserved", lambda kinds: tuple(msgspec.convert(kinds, list[str])), ()),
        held_until=value("held_until", _moment, None),
        found_in_future=value("found_in_future", _moment, None),
    )


def change(place: SourceDirectory, name: str, **changes: Any) -> Notes:
    """The notes about a snapshot, changed and written; all else in the file stays.

    Raises OSError where the file is there and cannot be read: what it says would be lost.
    """
    content = _content(place, name)
    notes = replace(read(place, name), **changes)
    kept = {key: value for key, value in content.items() if key not in _KEYS}
    fs.write_json(place.record_path(name), {"name": name, **kept, **notes.as_json()})
    return notes


def _content(place: SourceDirectory, name: str) -> dict[str, Any]:
    try:
        content = json.loads(fs.read_file(place.record_path(name), limit_bytes=LIMIT_BYTES))
    except OSError as error:
        if error.errno not in _NO_FILE:
            raise
        return {}
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _text(text: Any) -> str:
    return msgspec.convert(text, str)


def _moment(text: Any) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("without a zone")
    return moment
