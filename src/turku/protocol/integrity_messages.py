"""What a storage proves about what it keeps (``/v2/storage_integrity_report``): damage, and restore drills.

Paths come in a form fit to be printed: they tell a person where to look, and nobody opens them at the coordinator.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from turku.protocol.messages import StorageCredentials, Text

CALL = "storage_integrity_report"
DAMAGES_LIMIT = 1000
"""Damaged files in one report; a storage sends more in several."""
SNAPSHOTS_LIMIT = 20
"""Snapshots named for one damaged file; ``snapshot_count`` says of how many."""

Count = Annotated[int, Meta(ge=0, le=2**62)]
Moment = Annotated[float, Meta(ge=0, le=4e9)]
"""Unix seconds."""
Seconds = Annotated[float, Meta(ge=0, le=1e9)]

DamageKind = Literal["content", "missing", "unreadable", "source", "attributes"]
"""``content``: not what was written; ``source``: differs from the machine's file of the same size and time;
``attributes``: has other extended attributes or ACLs."""
DamageState = Literal["lost", "next_backup", "repaired", "alarm", "gone"]
"""``alarm`` needs no repair, but a person must look. ``gone`` means that no snapshot has the damaged file any more."""


class DamagedFile(msgspec.Struct, frozen=True, omit_defaults=True):
    """A file that is not what it was; ``path`` is within its source, ``checksum`` what it should have (hexadecimal)."""

    path: Text
    kind: DamageKind
    state: DamageState
    snapshots: Annotated[list[Text], Meta(max_length=SNAPSHOTS_LIMIT)] = []
    snapshot_count: Count = 0
    checksum: Annotated[str, Meta(max_length=64)] = ""


class VerifyOutcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """How much of a source was read again; ``time_oldest_check``: when the file was read that was read longest ago."""

    time: Moment
    files: Count = 0
    size_bytes: Count = 0
    seconds: Seconds = 0.0
    is_whole: bool = False
    """Whether each stored file has been read by now since the time before last that all were."""
    time_oldest_check: Moment | None = None


class DrillOutcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a restore drill went; it counts as fresh for ``valid_seconds``."""

    success: bool
    time_begin: Moment
    time_end: Moment
    snapshot: Text = ""
    files: Count = 0
    size_bytes: Count = 0
    valid_seconds: Seconds = 0.0
    summary: Annotated[str, Meta(max_length=16384)] = ""


class SourceIntegrity(msgspec.Struct, frozen=True, omit_defaults=True):
    """All of it is optional."""

    damages: list[DamagedFile] = []
    verified: VerifyOutcome | None = None
    drill: DrillOutcome | None = None


class MachineIntegrity(msgspec.Struct, frozen=True):
    uuid: Text
    sources: dict[str, SourceIntegrity] = {}


class StorageIntegrityReportRequest(msgspec.Struct, frozen=True):
    storage: StorageCredentials
    machine: MachineIntegrity
