"""The result of a restore drill, and the record of a source's last drill, kept beside its catalog."""

import json
import os
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import msgspec

from turku.core.log import one_line
from turku.core.units import count_of, size
from turku.protocol.integrity_messages import DrillOutcome
from turku.storage.catalog import database
from turku.storage.config.model import IntegrityConfig
from turku.storage.disk.source_directory import SourceDirectory
from turku.storage.fs import tree as fs

VALID_FACTOR = 1.5
"""A drill stays valid for so many times ``drill_days``, so that one that is late or is repeated raises no alarm."""
DEFAULT_VALID_DAYS = 30.0
RETRY = timedelta(days=1)
"""The time after which a failed drill is repeated."""
_LIMIT_BYTES = 64 * 1024
_SUMMARY_LIMIT = 16_000
_PROBLEMS_SHOWN = 20
_DAY_SECONDS = 86_400.0


@dataclass
class DrillResult:
    """The result of a drill."""

    place: SourceDirectory
    begin: datetime
    end: datetime
    snapshot: str = ""
    files: int = 0
    size_bytes: int = 0
    unchecked: int = 0
    """The number of files without a known checksum. Only their existence and size were checked."""
    skipped_attributes: int = 0
    """The number of files and directories with attributes that the scratch directory cannot have.

    They were not compared.
    """
    problems: list[str] = field(default_factory=list)
    check: str = ""
    """The last output of the check program."""

    @property
    def is_good(self) -> bool:
        return not self.problems

    @property
    def summary(self) -> str:
        """Return a line about what was restored, and one for each of the first problems."""
        seconds = (self.end - self.begin).total_seconds()
        restored = f"{count_of(self.files, 'file')}, {size(self.size_bytes)}"
        lines = [f"{restored} of {self.snapshot or 'no snapshot'} in {seconds:.1f} s"]
        if self.unchecked:
            lines.append(f"{self.unchecked} of them have no checksum yet")
        if self.skipped_attributes:
            lines.append(
                f"{self.skipped_attributes} have attributes or ACLs that cannot be set there, and were compared without"
            )
        lines += [one_line(problem) for problem in self.problems[:_PROBLEMS_SHOWN]]
        if len(self.problems) > _PROBLEMS_SHOWN:
            lines.append(f"and {len(self.problems) - _PROBLEMS_SHOWN} more")
        if self.check:
            lines.append(f"check program: {self.check}")
        return "\n".join(lines)[:_SUMMARY_LIMIT]

    def outcome(self, configuration: IntegrityConfig) -> DrillOutcome:
        """Return the result as a protocol message."""
        days = configuration.drill_days or DEFAULT_VALID_DAYS
        return DrillOutcome(
            success=self.is_good,
            time_begin=self.begin.timestamp(),
            time_end=self.end.timestamp(),
            snapshot=self.snapshot[:255],
            files=self.files,
            size_bytes=self.size_bytes,
            valid_seconds=VALID_FACTOR * days * _DAY_SECONDS,
            summary=self.summary,
        )


def read(place: SourceDirectory) -> DrillOutcome | None:
    """Return the last drill of the source, or None before the first one."""
    path = database.file_of(place).with_suffix(".drill.json")
    try:
        database.refuse_planted(place, path)
        return msgspec.convert(json.loads(fs.read_file(path, limit_bytes=_LIMIT_BYTES)), DrillOutcome)
    except (OSError, ValueError, msgspec.MsgspecError):
        return None


def write(place: SourceDirectory, outcome: DrillOutcome) -> None:
    """Record the drill as the last one of the source. Raises CatalogUnusable, DurableWriteFailed."""
    path = database.file_of(place).with_suffix(".drill.json")
    try:
        database.make_directory(place)
    except OSError as error:
        raise database.unusable(place, error) from error
    owner = fs.status(path.parent)
    is_given = owner is not None and os.geteuid() == 0
    fs.write_json(
        path,
        msgspec.to_builtins(outcome),
        owner=(owner.st_uid, owner.st_gid) if owner is not None and is_given else None,
    )


def is_due(place: SourceDirectory, *, drill_days: float, now: datetime) -> bool:
    """Return True if a drill of the source is due. ``drill_days`` of 0 is never."""
    if drill_days == 0:
        return False
    last = read(place)
    if last is None:
        return True
    pause = timedelta(days=drill_days) if last.success else min(timedelta(days=drill_days), RETRY)
    return last.time_end > now.timestamp() or now.timestamp() - last.time_end >= pause.total_seconds()
