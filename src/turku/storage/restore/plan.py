"""The plan of a restore: the files that are sent, and what the agent learns before anything is sent.

``push`` sends them.
"""

import functools
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
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
from turku.storage.config.model import LimitsConfig, StorageConfig, StorageState
from turku.storage.containment import bubblewrap, sandbox
from turku.storage.restore import snapshot_lookup
from turku.storage.restore.history_view import HistoryView
from turku.storage.restore.recorded_entries import RecordedEntries
from turku.storage.restore.snapshot_lookup import SnapshotTree

_BATCH = 400
_PATH_SHOWN = 100
_HOLES_SHARE = 1 / 8
"""The share of holes up to which the agent makes them. Asked for holes, rsync writes each kilobyte by itself."""
_ARGUMENT_LIMIT_BYTES = 4095
_SHORT_BYTES = 1024
"""A length of paths that always fits: no directory of snapshots is so deep that such a path would be too long."""


@dataclass(frozen=True)
class PreparedRestore:
    """A checked restore. ``paths`` are relative and exist. Empty is the whole tree."""

    snapshot: SnapshotTree
    root: int
    """The open directory of the tree, from the plan to the end: what was planned is what is sent."""
    paths: tuple[bytes, ...]
    scope: Scope
    """The part of history that the session may see."""
    request: FileRestoreRequest
    by_xxh128: bool
    lost_paths: tuple[bytes, ...] = ()
    """Requested paths that only the catalog has."""
    long_paths: tuple[bytes, ...] = ()
    """Requested paths that are too long as arguments of rsync."""
    files: int | None = None
    """The number of files to send, or None if it is not known."""
    size_bytes: int | None = None
    """The size of their content in bytes, or None if it is not known."""
    with_holes: tuple[bytes, ...] | None = None
    """Files in which the agent makes the holes, or None if rsync makes holes in all files."""
    holes_bytes: int = 0
    """The size of those holes in bytes."""
    mark: bytes = field(default_factory=lambda: secrets.token_hex(16).encode("ascii"))
    """The secret beginning of rsync's own lines. No machine learns it."""

    def recorded(self, configuration: StorageConfig) -> RecordedEntries:
        """Open the recorded entries of the restore."""
        return RecordedEntries(configuration, self.snapshot, self.root, (*self.paths, *self.lost_paths))


@contextmanager
def prepared(
    configuration: StorageConfig, view: HistoryView, request: FileRestoreRequest
) -> Iterator[tuple[PreparedRestore, RestorePlan]]:
    """Prepare the requested restore for the length of the block, and yield it with the plan for the agent.

    Raises NotInHistory, InvalidValue.
    """
    snapshot = view.choose(request.snapshot)
    by_xxh128 = request.knows_xxh128 and rsync_checksums.knows_xxh128(configuration.receiving.rsync_command)
    with DirectoryTree(snapshot.path) as tree:
        paths = _checked_paths(configuration, snapshot, tree, view.scope, request)
        long = _too_long(configuration.limits, snapshot, paths.there)
        if long and len(long) == len(paths.there):
            raise NotInHistory(
                f"{snapshot_lookup.shown(long[0][:_PATH_SHOWN])}... is too long to be restored by its name",
                hint="restore a directory above it",
            )
        there = tuple(path for path in paths.there if path not in long)
        restore = PreparedRestore(snapshot, tree.root, there, view.scope, request, by_xxh128, paths.lost, long)
        with restore.recorded(configuration) as recorded:
            restore = _counted(restore, recorded)
            plan = _plan(configuration.state, restore, recorded)
        yield restore, plan


def _checked_paths(
    configuration: StorageConfig, snapshot: SnapshotTree, tree: DirectoryTree, scope: Scope, request: FileRestoreRequest
) -> snapshot_lookup.CheckedPaths:
    asked = [path_bytes(path) for path in request.paths]
    with ExitStack() as stack:
        # Opened for the first path that the tree lacks.
        opened = functools.cache(lambda: stack.enter_context(RecordedEntries(configuration, snapshot, tree.root, ())))
        return snapshot_lookup.checked_paths(
            snapshot, tree, asked, scope, is_recorded=lambda path: opened().is_recorded(path)
        )


def _counted(restore: PreparedRestore, recorded: RecordedEntries) -> PreparedRestore:
    """Return the restore with the number of its files, and the files in which the agent makes holes."""
    totals = recorded.totals()
    if totals is None:
        return restore
    restore = replace(restore, files=totals[0], size_bytes=totals[1])
    with_holes = recorded.with_holes() if restore.request.digs_holes else None
    if with_holes is None or with_holes[1] > _HOLES_SHARE * totals[1]:
        return restore
    return replace(restore, with_holes=tuple(with_holes[0]), holes_bytes=with_holes[1])


def _too_long(configuration: LimitsConfig, snapshot: SnapshotTree, paths: Iterable[bytes]) -> tuple[bytes, ...]:
    """Return the paths that rsync refuses as arguments. It puts its working directory in front of each."""
    long = [path for path in paths if len(path) > _SHORT_BYTES]
    if not long:
        return ()
    directory = sandbox.WORKING_DIRECTORY if bubblewrap.is_contained(configuration) else snapshot.path
    limit = _ARGUMENT_LIMIT_BYTES - len(os.fsencode(directory)) - 1
    return tuple(path for path in long if len(path) > limit)


def _plan(configuration: StorageState, restore: PreparedRestore, recorded: RecordedEntries) -> RestorePlan:
    snapshot = restore.snapshot
    copy_bytes = recorded.copy_bytes()
    parents = [
        _parent(restore, recorded, path, found)
        for path in _parents(restore.paths)
        if (found := recorded.stored(path)) is not None
    ]
    return RestorePlan(
        snapshot.name,
        moment=None if snapshot.moment is None else snapshot.moment.astimezone(configuration.timezone).isoformat(),
        files=restore.files,
        size_bytes=restore.size_bytes,
        # SELinux gives every file a label, so the source's own directory has one too.
        has_labels=extended_attributes.has_kept_label(restore.root),
        copy_bytes=None if copy_bytes is None else copy_bytes + restore.holes_bytes,
        parents=parents,
        is_by_xxh128=restore.by_xxh128,
        remarks=_remarks(restore),
        kept=[kind for kind in get_args(Settable) if kind in snapshot.notes.preserved],
    )


def _parent(restore: PreparedRestore, recorded: RecordedEntries, path: bytes, found: CatalogEntry) -> ParentDirectory:
    names, group = recorded.beyond_mode(path)
    return ParentDirectory(
        wire_path(path),
        found.mode if group is None else posix_acl.narrowed(found.mode, group),
        found.uid,
        found.gid,
        wire_time(_time_shown(restore, path, found)),
        has_acl=posix_acl.ACCESS in names or posix_acl.DEFAULT in names,
    )


def _remarks(restore: PreparedRestore) -> list[str]:
    snapshot = restore.snapshot
    is_empty = restore.files == 0 and not restore.paths
    found = [*snapshot.remarks, *([f"there is no file in {snapshot.name}"] if is_empty else [])]
    return [one_line(remark)[:REMARK_LIMIT] for remark in found][:REMARKS_LIMIT]


def _time_shown(restore: PreparedRestore, path: bytes, found: CatalogEntry) -> int:
    # A directory above the granted paths is created as it was. Its time would tell when something else in it changed.
    if restore.scope.has_path(path) or restore.snapshot.moment is None:
        return found.mtime_ns
    return int(restore.snapshot.moment.timestamp()) * 1_000_000_000


def _parents(paths: Iterable[bytes]) -> list[bytes]:
    found: dict[bytes, None] = {}
    for path in paths:
        parts = path.split(b"/")[:-1]
        for length in range(1, len(parts) + 1):
            found[b"/".join(parts[:length])] = None
    return list(found)


def list_only(configuration: StorageConfig, restore: PreparedRestore, answers: JsonLines) -> None:
    """Send the manifest of all entries in the restore, without any file."""
    with restore.recorded(configuration) as recorded:
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
    """Paths that the catalog lists and the tree lacks. All are counted, and as many are named as one answer holds."""

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
    """Return a path of the catalog as the agent is told of it."""
    return ManifestEntry(
        wire_path(found.path),
        found.kind.value,
        found.size,
        wire_time(found.mtime_ns),
        is_sent,
        found.checksum,
        None if found.link_target is None else wire_path(found.link_target),
        found.attributes,
    )
