"""The known damages of a source, kept beside its catalog until they are repaired or have left history.

They are in ``<volume>/.catalogs/<uuid>/<source>.damage.json``, which a machine cannot reach. So is
``<source>.altered.json``, with the files that a comparison found to differ from the machine's.
"""

import json
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from turku.core.log import one_line
from turku.protocol.integrity_messages import SNAPSHOTS_LIMIT, DamagedFile, DamageKind, DamageState
from turku.storage.catalog import database
from turku.storage.disk.source_directory import SourceDirectory
from turku.storage.fs import tree as fs

LIMIT = 10_000
"""The most damaged files remembered of one source. A disk that loses more than that loses everything."""
SNAPSHOTS_KEPT = 100
_LIMIT_BYTES = 64 * 1024 * 1024
_TEXT_LIMIT = 4000
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class DamageRecord:
    """A version of a path whose stored file is damaged, in some snapshots at least."""

    path: str
    """The path, decoded by ``os.fsdecode``, which keeps bytes that are not UTF-8."""
    kind: DamageKind
    state: DamageState
    snapshots: tuple[str, ...]
    """The snapshots with the damaged file, oldest first. If there are many, the newest of them."""
    snapshot_count: int = 0
    checksum: str = ""
    """The right checksum in hexadecimal, or empty if it is not known."""
    size: int = 0
    mtime_ns: int = 0
    is_reported: bool = False
    """True if the coordinator knows this state of it."""

    @property
    def raw_path(self) -> bytes:
        return os.fsencode(self.path)

    @property
    def key(self) -> tuple[str, str]:
        """Return the identity of the damage: the path, and the content that it should have."""
        return (self.path, self.checksum)

    def message(self) -> DamagedFile:
        """Return this record as a protocol message."""
        return DamagedFile(
            path=one_line(self.raw_path)[:_TEXT_LIMIT],
            kind=self.kind,
            state=self.state,
            snapshots=[one_line(name)[:255] for name in self.snapshots[-SNAPSHOTS_LIMIT:]],
            snapshot_count=self.snapshot_count,
            checksum=self.checksum,
        )


def file_of(place: SourceDirectory) -> Path:
    """Return the path of the file. The disk is not read."""
    return database.file_of(place).with_suffix(".damage.json")


def read(place: SourceDirectory) -> list[DamageRecord]:
    """Return the damages, oldest first. Empty if there are none or the file is not ours.

    Raises OSError if the disk does not return the file, as the next write would lose its content.
    """
    try:
        database.refuse_planted(place, file_of(place))
        content = json.loads(fs.read_file(file_of(place), limit_bytes=_LIMIT_BYTES))
        return msgspec.convert(content, list[DamageRecord])
    except OSError as error:
        if error.errno in fs.SAYS_NOTHING:
            raise
        return []
    except (ValueError, msgspec.MsgspecError):
        return []


def write(place: SourceDirectory, damages: Iterable[DamageRecord]) -> None:
    """Write these damages, in place of all others."""
    _write(file_of(place), [msgspec.to_builtins(damage) for damage in damages][:LIMIT])


def _write(path: Path, kept: list[Any]) -> None:
    if not kept:
        fs.unlink(path)
        return
    owner = fs.status(path.parent)
    is_given = owner is not None and os.geteuid() == 0
    fs.write_json(path, kept, owner=(owner.st_uid, owner.st_gid) if owner is not None and is_given else None)


def to_fetch(place: SourceDirectory) -> frozenset[bytes]:
    """Return the paths of files that the next backup must fetch, whatever their size and time are.

    They are files whose stored copy is damaged, and files that a comparison found to have another content.
    """
    try:
        found = frozenset(each.raw_path for each in read(place) if each.state == "next_backup")
    except OSError as error:
        # The backup goes on, and the one after it fetches them.
        _LOG.warning("%s: cannot be read: %s", file_of(place), error.strerror or error)
        found = frozenset()
    return found | altered(place)


def altered(place: SourceDirectory) -> frozenset[bytes]:
    """Return the paths of files that a comparison found to differ, and that no backup has fetched since."""
    try:
        database.refuse_planted(place, _altered_file(place))
        content = json.loads(fs.read_file(_altered_file(place), limit_bytes=_LIMIT_BYTES))
        return frozenset(os.fsencode(path) for path in msgspec.convert(content, list[str]))
    except (OSError, ValueError, msgspec.MsgspecError):
        return frozenset()


def note_altered(place: SourceDirectory, paths: Iterable[bytes]) -> None:
    """Add these files to those that the next backup fetches. Raises OSError, DurableWriteFailed."""
    kept = sorted(altered(place).union(paths))[:LIMIT]
    _write(_altered_file(place), [os.fsdecode(path) for path in kept])


def forget_altered(place: SourceDirectory) -> None:
    """Forget the altered files after a backup has fetched them. Raises OSError."""
    fs.unlink(_altered_file(place))


def _altered_file(place: SourceDirectory) -> Path:
    return database.file_of(place).with_suffix(".altered.json")


def open_damages(damages: Iterable[DamageRecord]) -> list[DamageRecord]:
    """Return the damages to keep once the coordinator knows them all: those that are not over."""
    return [replace(damage, is_reported=True) for damage in damages if damage.state not in ("repaired", "gone")]
