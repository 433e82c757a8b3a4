"""Reports of a storage on damage, scrubs and restore drills (``/v2/storage_integrity_report``).

Paths are printable text for people. Nobody opens them at the coordinator.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from turku.protocol.messages import StorageCredentials, Text

CALL = "storage_integrity_report"
DAMAGES_LIMIT = 1000
"""Damaged files in one report. A storage sends more of them in several reports."""
SNAPSHOTS_LIMIT = 20
"""Snapshots named for one damaged file. ``snapshot_count`` is the number of all."""

Count = Annotated[int, Meta(ge=0, le=2**62)]
Moment = Annotated[float, Meta(ge=0, le=4e9)]
"""Unix seconds."""
Seconds = Annotated[float, Meta(ge=0, le=1e9)]

DamageKind = Literal["content", "missing", "unreadable", "source", "attributes"]
"""``content``: differs from the content that was written. ``source``: differs from the machine's file of the same size
and time. ``attributes``: has other extended attributes or ACLs."""
DamageState = Literal["lost", "next_backup", "repaired", "alarm", "gone"]
"""``alarm`` needs no repair, but a person must look. ``gone``: no snapshot has the damaged file any more."""


class DamagedFile(msgspec.Struct, frozen=True, omit_defaults=True):
    """A damaged file. ``path`` is relative to its source, and ``checksum`` is the expected one (hexadecimal)."""

    path: Text
    kind: DamageKind
    state: DamageState
    snapshots: Annotated[list[Text], Meta(max_length=SNAPSHOTS_LIMIT)] = []
    snapshot_count: Count = 0
    checksum: Annotated[str, Meta(max_length=64)] = ""


class VerifyOutcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """The extent of a scrub of one source. ``time_oldest_check`` is that of the file read longest ago."""

    time: Moment
    files: Count = 0
    size_bytes: Count = 0
    seconds: Seconds = 0.0
    is_whole: bool = False
    """True when each stored file was read again since the last complete scrub but one."""
    time_oldest_check: Moment | None = None


class DrillOutcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """The result of a restore drill. It counts as fresh for ``valid_seconds``."""

    success: bool
    time_begin: Moment
    time_end: Moment
    snapshot: Text = ""
    files: Count = 0
    size_bytes: Count = 0
    valid_seconds: Seconds = 0.0
    summary: Annotated[str, Meta(max_length=16384)] = ""


class SourceIntegrity(msgspec.Struct, frozen=True, omit_defaults=True):
    """The report on one source. Each part is optional."""

    damages: list[DamagedFile] = []
    verified: VerifyOutcome | None = None
    drill: DrillOutcome | None = None


class MachineIntegrity(msgspec.Struct, frozen=True):
    uuid: Text
    sources: dict[str, SourceIntegrity] = {}


class StorageIntegrityReportRequest(msgspec.Struct, frozen=True):
    storage: StorageCredentials
    machine: MachineIntegrity
