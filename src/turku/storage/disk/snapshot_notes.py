"""Notes about a snapshot, in the same file as the contract's record, under keys of our own.

An existing storage ignores these keys. Each key is read by itself, and a missing or broken one counts as not set.
"""

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
"""Errors that say that there is no such file, or none that we wrote. Other errors do not tell."""
_LOG = logging.getLogger(__name__)
_Value = TypeVar("_Value")


class Review(StrEnum):
    """The decision of a person about a quarantined snapshot."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"


@dataclass(frozen=True)
class Notes:
    """The notes about one snapshot."""

    period: timedelta | None = None
    """The period of the schedule that the snapshot belongs to (``retention.Snapshot.period``)."""
    stats: RunStats | None = None
    findings: tuple[str, ...] = ()
    """The findings of the anomaly check when it was made. A snapshot with findings is quarantined."""
    review: Review | None = None
    bytes_per_second: float | None = None
    """The transfer rate from the machine, measured when enough was last transferred."""
    compress: Compression = Compression.AUTO
    """The source's option when the snapshot was made. A restore compresses in the same way."""
    strategy: str = ""
    """The strategy of the run (``BackupStrategy``)."""
    strategy_reason: str = ""
    """The reason for a full run although there was a base."""
    preserved: tuple[str, ...] = ()
    """The kinds of attributes that all of its files were backed up with (``restore_messages.Settable``)."""
    held_until: datetime | None = None
    """The time until which retention keeps it after its return from the trash. Aware."""
    incomplete: Incompleteness = COMPLETE
    """The part of the source that could not be read."""
    machine_moment_ns: int | None = None
    """The machine's clock at the beginning of the session, in Unix nanoseconds."""
    attributes_compared: datetime | None = None
    """The time of the last comparison of all ACLs and extended attributes, for it or for an earlier snapshot. Aware."""
    found_in_future: datetime | None = None
    """The time when a backup found the snapshot's date in the future, because a clock of the storage was wrong."""
    is_readable: bool = True
    """False if the disk did not return the notes. Retention then keeps the snapshot, as the notes may demand it."""

    @property
    def is_good(self) -> bool:
        return not self.findings or self.review is Review.ACCEPTED

    @property
    def needs_review(self) -> bool:
        """Return True if the snapshot is quarantined and nobody has reviewed it."""
        return bool(self.findings) and self.review is None

    def as_json(self) -> dict[str, Any]:
        """Return the keys of the file. Keys without a value are left out."""
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
    """Return the notes about a snapshot."""
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
        attributes_compared=value("attributes_compared", aware_moment, None),
        strategy=value("strategy", _text, ""),
        strategy_reason=value("strategy_reason", _text, ""),
        preserved=value("preserved", lambda kinds: tuple(msgspec.convert(kinds, list[str])), ()),
        held_until=value("held_until", aware_moment, None),
        found_in_future=value("found_in_future", aware_moment, None),
    )


def change(place: SourceDirectory, name: str, **changes: Any) -> Notes:
    """Change some notes about a snapshot, write them, and return all of its notes.

    Other keys of the file stay. Raises OSError if the file exists and cannot be read, as its content would be lost.
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


def aware_moment(text: Any) -> datetime:
    """Return the time of an ISO 8601 text with a zone. Raises ValueError and TypeError for anything else."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("without a zone")
    return moment
