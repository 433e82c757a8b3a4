"""A machine gets files back: what they are, and what the agent is told before anything is sent.

``recovery_transfer.py`` sends them.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import get_args

from turku.core.filesystem import extended_attributes, posix_acl
from turku.core.filesystem.directory_tree import DirectoryTree
from turku.core.log import one_line
from turku.errors import NotInHistory
from turku.protocol import rsync_checksums
from turku.protocol.jsonlines import JsonLines
from turku.protocol.restore_messages import (
    LOST_LIMIT,
    LOST_LIMIT_BYTES,
    REMARK_LIMIT,
    REMARKS_LIMIT,
    FileRestoreRequest,
    Manifest,
    ManifestEntry,
    ParentDirectory,
    RestoreEnd,
    RestorePlan,
    Settable,
    WirePath,
    path_bytes,
    wire_path,
    wire_time,
)
from turku.storage.catalog import CatalogEntry, Scope
from turku.storage.config.model import StorageConfig
from turku.storage.containment import availability, sandbox
from turku.storage.restore import snapshot_lookup
from turku.storage.restore.history_view import HistoryView
from turku.storage.restore.recorded_entries import RecordedEntries
from turku.storage.restore.snapshot_lookup import SnapshotTree

_BATCH = 400
_NO_TIME_LIMIT_SECONDS = 10 * 365 * 24 * 3600.0
_LAST_LINES = 25
_LINE_SHOWN_BYTES = 4096
_NAME_SHOWN = 200
_PATH_SHOWN = 100
_HOLES_SHARE = 1 / 8
"""Of the bytes that go back. Asked for holes, rsync writes each kilobyte by itself, so that the agent makes them where
they are few."""
_ARGUMENT_LIMIT_BYTES = 4095
_SHORT_BYTES = 1024
"""No directory of snapshots is so deep that a path of this length would be too long."""
_WITH_ATTRIBUTES = (b"f", b"d", b"S", b"D")
_NAMES: dict[Settable, tuple[str, ...]] = {
    "acls": (posix_acl.ACCESS, posix_acl.DEFAULT),
    "attributes": ("user.",),
    "privileged": ("trusted.", "security."),
}
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class PreparedRestore:
    """What goes back, everything in it checked: ``paths`` are relative and there, none for the whole tree."""

    snapshot: SnapshotTree
    root: int
    """The tree's directory, open from the plan to the end: what was planned is what is sent."""
    paths: tuple[bytes, ...]
    scope: Scope
    """What the session may be told of."""
    request: FileRestoreRequest
    by_xxh128: bool
    lost_paths: tuple[bytes, ...] = ()
    """Paths asked for that only the catalog has."""
    long_paths: tuple[bytes, ...] = ()
    """Paths asked for that rsync would not take as arguments."""
    files: int | None = None
    """The number of those that go back. None is not known."""
    size_bytes: int | None = None
    """Of their content; None is not known."""
    with_holes: tuple[bytes, ...] | None = None
    """Files in which the agent makes the holes; None where rsync does, in all files."""
    holes_bytes: int = 0
    """What those take until then."""
    mark: bytes = field(default_factory=lambda: secrets.token_hex(16).encode("ascii"))
    """What rsync's own lines begin with; no machine is told."""

    def recorded(self, configuration: StorageConfig) -> RecordedEntries:
        """Return what goes back, entry by entry."""
        return RecordedEntries(configuration, self.snapshot, self.root, (*self.paths, *self.lost_paths))


@contextmanager
def prepared(configuration: StorageConfig, view: HistoryView, request: FileRestoreRequest) -> Iterator[PreparedRestore]:
    """What goes back by this request, for the length of the block. Raises NotInHistory, InvalidValue."""
    kept = view.choose(request.snapshot)
    by_xxh128 = request.knows_xxh128 and rsync_checksums.knows_xxh128(configuration.receiving.rsync_command)
    with DirectoryTree(kept.path) as tree:
        asked = [path_bytes(path) for path in request.paths]

        def is_recorded(path: bytes) -> bool:
            with RecordedEntries(configuration, kept, tree.root, [path]) as recorded:
                return recorded.is_recorded(path)

        paths = snapshot_lookup.checked_paths(kept, tree, asked, view.scope, is_recorded=is_recorded)
        long = _too_long(configuration, kept, paths.there)
        if long and len(long) == len(paths.there):
            raise NotInHistory(
                f"{snapshot_lookup.shown(long[0][:_PATH_SHOWN])}... is too long to be restored by its name",
                hint="restore a directory above it",
            )
        there = tuple(path for path in paths.there if path not in long)
        found = PreparedRestore(kept, tree.root, there, view.scope, request, by_xxh128, paths.lost, long)
        yield _counted(configuration, found)


def _counted(configuration: StorageConfig, recovery: PreparedRestore) -> PreparedRestore:
    """Return what goes back with the number of its files, and those in which the agent makes the holes."""
    with recovery.recorded(configuration) as recorded:
        totals = recorded.totals()
        if totals is None:
            return recovery
        recovery = replace(recovery, files=totals[0], size_bytes=totals[1])
        with_holes = recorded.with_holes() if recovery.request.digs_holes else None
        if with_holes is None or with_holes[1] > _HOLES_SHARE * totals[1]:
            return recovery
        return replace(recovery, with_holes=tuple(with_holes[0]), holes_bytes=with_holes[1])


def _too_long(configuration: StorageConfig, kept: SnapshotTree, paths: Iterable[bytes]) -> tuple[bytes, ...]:
    """Return the paths that rsync refuses as arguments: it puts the directory that it works in before each."""
    long = [path for path in paths if len(path) > _SHORT_BYTES]
    if not long:
        return ()
    directory = sandbox.WORKING_DIRECTORY if availability.is_contained(configuration) else kept.path
    limit = _ARGUMENT_LIMIT_BYTES - len(os.fsencode(directory)) - 1
    return tuple(path for path in long if len(path) > limit)


def message(configuration: StorageConfig, recovery: PreparedRestore) -> RestorePlan:
    """Return what is about to be written."""
    kept = recovery.snapshot
    with recovery.recorded(configuration) as recorded:
        copy_bytes = recorded.copy_bytes()
        parents = [
            _parent(recovery, recorded, path, found)
            for path in _parents(recovery.paths)
            if (found := recorded.stored(path)) is not None
        ]
    return RestorePlan(
        kept.name,
        moment=None if kept.moment is None else kept.moment.astimezone(configuration.state.timezone).isoformat(),
        files=recovery.files,
        size_bytes=recovery.size_bytes,
        # Where SELinux is at work it gives a label to every file, the source's own directory among them.
        has_labels=extended_attributes.has_kept_label(recovery.root),
        copy_bytes=None if copy_bytes is None else copy_bytes + recovery.holes_bytes,
        parents=parents,
        is_by_xxh128=recovery.by_xxh128,
        temporary=recovery.request.temporary,
        remarks=_remarks(recovery),
        kept=[kind for kind in get_args(Settable) if kind in kept.notes.preserved],
    )


def _parent(recovery: PreparedRestore, recorded: RecordedEntries, path: bytes, found: CatalogEntry) -> ParentDirectory:
    names, group = recorded.beyond_mode(path)
    return ParentDirectory(
        wire_path(path),
        found.mode if group is None else posix_acl.narrowed(found.mode, group),
        found.uid,
        found.gid,
        *wire_time(_time_shown(recovery, path, found)),
        has_acl=posix_acl.ACCESS in names or posix_acl.DEFAULT in names,
    )


def _remarks(recovery: PreparedRestore) -> list[str]:
    kept = recovery.snapshot
    is_empty = recovery.files == 0 and not recovery.paths
    found = [*kept.remarks, *([f"there is no file in {kept.name}"] if is_empty else [])]
    return [one_line(remark)[:REMARK_LIMIT] for remark in found][:REMARKS_LIMIT]


def _time_shown(recovery: PreparedRestore, path: bytes, found: CatalogEntry) -> int:
    # A directory above the permitted paths is made as it was, and its time tells when something else in it changed.
    if recovery.scope.has_path(path) or recovery.snapshot.moment is None:
        return found.mtime_ns
    return int(recovery.snapshot.moment.timestamp()) * 1_000_000_000


def _parents(paths: Iterable[bytes]) -> list[bytes]:
    found: dict[bytes, None] = {}
    for path in paths:
        parts = path.split(b"/")[:-1]
        for length in range(1, len(parts) + 1):
            found[b"/".join(parts[:length])] = None
    return list(found)


def list_only(configuration: StorageConfig, recovery: PreparedRestore, answers: JsonLines) -> None:
    """Send the manifest of all that would be considered."""
    with recovery.recorded(configuration) as recorded:
        batch: list[ManifestEntry] = []
        lost = LostPaths()
        for found in recorded.entries():
            if found.version and recorded.is_lost(found):
                lost.add(found.path)
                continue
            batch.append(manifest_entry(found, is_sent=False))
            if len(batch) == _BATCH:
                answers.send(Manifest(batch))
                batch = []
        answers.send(Manifest(batch))
    answers.send(RestoreEnd(lost=lost.named, lost_count=lost.count))


class LostPaths:
    """Paths that the catalog lists and the tree lacks: all counted, and named as far as one answer holds them."""

    def __init__(self) -> None:
        self.named: list[WirePath] = []
        self.count = 0
        self._bytes = 0

    def add(self, path: bytes) -> None:
        self.count += 1
        self._bytes += len(path)
        if len(self.named) < LOST_LIMIT and self._bytes <= LOST_LIMIT_BYTES:
            self.named.append(wire_path(path))


def manifest_entry(found: CatalogEntry, *, is_sent: bool) -> ManifestEntry:
    mtime_ns, exact_mtime = wire_time(found.mtime_ns)
    return ManifestEntry(
        wire_path(found.path),
        found.kind.value,
        found.size,
        mtime_ns,
        is_sent,
        found.checksum is not None,
        found.checksum,
        None if found.link_target is None else wire_path(found.link_target),
        exact_mtime,
        found.attributes,
    )
