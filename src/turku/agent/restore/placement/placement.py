"""Placement: received entries are moved from the staging directory to their places in the target, one by one.

Only the requested names and what is below them are moved, and of these only what the manifest names. No symbolic link
of the target is followed. Whatever is in the way is replaced, as rsync does. A directory that the target does not have
is moved as a whole by one rename.
"""

import errno
import os
import stat
import struct
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress

from turku.agent.restore import file_metadata
from turku.agent.restore.file_metadata import EVERY_KIND
from turku.agent.restore.placement.existing_files import ExistingFiles
from turku.agent.restore.placement.scope import ParentDirectories, PlacementScope, move_directory, move_entry, status_of
from turku.agent.restore.staging.target import PreparedTarget
from turku.core.filesystem import directory_tree, posix_acl, removal
from turku.core.filesystem.directory_tree import DirectoryTree, WalkEntry
from turku.core.filesystem.paths import joined, split
from turku.core.filesystem.spool import Stack
from turku.protocol.restore_messages import Overwrite, ParentDirectory, Settable

_ENTER, _ENTER_NEW, _LEAVE, _LEAVE_NEW, _LEAVE_UNCHANGED = b"e", b"n", b"l", b"m", b"k"
"""Steps on the stack: enter a directory, or leave it and set its metadata. NEW: the placement created it."""
_LEAVING = (_LEAVE, _LEAVE_NEW, _LEAVE_UNCHANGED)
_METADATA = struct.Struct("=IIIqIqI")
"""Mode, owner, group, and two times in seconds and nanoseconds, as some times exceed 64 bits of nanoseconds."""
_SECOND_NS = 10**9


class Placement:
    """The placement of one restore. ``run`` it once, when nobody writes into the staging directory any more."""

    def __init__(
        self,
        prepared: PreparedTarget,
        *,
        is_in_manifest: Callable[[bytes], bool],
        overwrite: Overwrite,
        delete: bool,
        is_complete: bool,
        recorded_kinds: Collection[Settable] = (),
    ) -> None:
        """Prepare a placement into the target.

        ``is_complete``: the storage's rsync ended well. ``recorded_kinds`` are the attributes that the snapshot has of
        all its files. A file without such attributes in the snapshot loses them in the target.
        """
        self._scope = PlacementScope(
            prepared, overwrite, replaces_directories=delete, removed_kinds=prepared.kinds & frozenset(recorded_kinds)
        )
        self.deleted = 0
        self.kept_back = 0
        """Files that arrived in a session that broke before the storage said what they are."""
        self.problems = self._scope.problems
        self._existing = ExistingFiles(self._scope)
        self._is_in_manifest = is_in_manifest
        self._delete = delete and is_complete
        # Until rsync has ended well, half-written files lie beside complete ones.
        self._moves_whole_directories = self._is_complete = is_complete
        # Directories that stay as they are, unless something for them arrived.
        self._untouched = prepared.untouched
        self._own = prepared.own
        self._never_deleted = prepared.untouched | prepared.own.names
        self._above_untouched = {above for path in self._never_deleted for above in _with_parents(path)}
        self._steps = Stack()

    def run(self, paths: Sequence[bytes], parents: Iterable[ParentDirectory]) -> None:
        """Move what arrived at and below ``paths``, or everything if there are none.

        ``parents`` are the storage's descriptions of the directories above the paths. What cannot be moved is added to
        the problems.
        """
        directories = ParentDirectories(self._scope, parents)
        with self._steps:
            if not paths:
                self._steps.push(_ENTER_NEW if self._scope.prepared.staging.is_target_new else _ENTER)
                self._run_steps()
            for path in _outermost(paths):
                with self._errors_as_problems(path):
                    self._requested_path(path, directories)
                self._run_steps()
            directories.finish()

    def _run_steps(self) -> None:
        while (step := self._steps.pop()) is not None:
            kind = step[:1]
            if kind in _LEAVING:
                path, metadata = step[1 + _METADATA.size :], _METADATA.unpack_from(step, 1)
                with self._errors_as_problems(path):
                    self._leave(path, metadata, kind)
            else:
                path = step[1:]
                with self._errors_as_problems(path):
                    self._enter(path, is_new=kind == _ENTER_NEW)

    @contextmanager
    def _errors_as_problems(self, path: bytes, action: str = "placed") -> Iterator[None]:
        """Turn an OSError of the block into a problem of the path, so that all other paths are still placed."""
        try:
            yield
        except OSError as error:
            self.problems.add(path, f"could not be {action}: {error.strerror or error}")

    def _requested_path(self, path: bytes, directories: ParentDirectories) -> None:
        above, name = split(path)
        if self._own.is_sealed(path):
            self.problems.add(path, "belongs to the agent that runs here: it was not restored (--to does)")
            return
        with directory_tree.opened_directory(self._scope.tree, above) as inner:
            received = status_of(inner, name)
            basis_inode = self._scope.prepared.basis_files.inode_at(path)
            if received is None and not (self._delete and basis_inode is not None):
                return
            outer = directories.open(above)
            try:
                if received is None:
                    self._delete_entry(outer, path)
                else:
                    self._entry(inner, outer, path, received, basis_inode or 0)
            finally:
                os.close(outer)

    # --- directories

    def _enter(self, path: bytes, *, is_new: bool) -> None:
        with (
            directory_tree.opened_directory(self._scope.tree, path) as inner,
            directory_tree.opened_directory(self._scope.target, path) as outer,
        ):
            # With ``never``, existing directories keep their metadata as existing files do.
            is_changed = is_new or (self._scope.overwrite != "never" and not self._own.is_kept(path))
            wanted = os.fstat(inner if is_changed else outer)
            metadata = _METADATA.pack(
                *(wanted.st_mode, wanted.st_uid, wanted.st_gid),
                *divmod(wanted.st_atime_ns, _SECOND_NS),
                *divmod(wanted.st_mtime_ns, _SECOND_NS),
            )
            kind = _LEAVE_NEW if is_new else _LEAVE if is_changed else _LEAVE_UNCHANGED
            self._steps.push(kind + metadata + path)
            removal.make_writable(inner)
            removal.make_writable(outer)
            self._contents(path, inner, outer)

    def _contents(self, path: bytes, inner: int, outer: int) -> None:
        missing = self._scope.prepared.basis_files.inodes_in(path)
        with os.scandir(inner) as entries:
            for entry in entries:
                name = os.fsencode(entry.name)
                inside = joined(path, name)
                basis_inode = missing.pop(name, 0)
                if self._is_reserved(inside) or (inside in self._untouched and _is_empty_directory(inner, name)):
                    continue
                if inside in self._own.sealed:
                    continue
                with self._errors_as_problems(inside):
                    self._entry(inner, outer, inside, entry.stat(follow_symlinks=False), basis_inode)
        if self._delete and not self._own.is_kept(path):
            for name in missing:
                inside = joined(path, name)
                if inside != self._scope.prepared.staging.name and inside not in self._never_deleted:
                    with self._errors_as_problems(inside, "deleted"):
                        self._delete_entry(outer, inside)

    def _delete_entry(self, outer: int, path: bytes) -> None:
        self._refuse_untouched(path)
        self.deleted += removal.remove(outer, path.rpartition(b"/")[2])

    def _refuse_untouched(self, path: bytes) -> None:
        """Raise OSError for an untouched directory and for one that contains one."""
        if path in self._above_untouched:
            raise OSError(errno.EBUSY, "another file system, a storage's volume or the agent's own files are in it")

    def _leave(self, path: bytes, metadata: tuple[int, ...], kind: bytes) -> None:
        mode, uid, gid, *times = metadata
        atime_ns, mtime_ns = (seconds * _SECOND_NS + rest for seconds, rest in (times[:2], times[2:]))
        with directory_tree.opened_directory(self._scope.target, path) as directory:
            found = os.fstat(directory)
            if self._scope.is_root and (found.st_uid, found.st_gid) != (uid, gid):
                os.fchown(directory, uid, gid)
            elif not self._scope.is_root and gid not in (found.st_gid, self._scope.group):
                with suppress(OSError):
                    os.fchown(directory, -1, gid)
            if kind != _LEAVE_UNCHANGED:
                mode = self._set_directory_attributes(path, directory, mode, is_new=kind == _LEAVE_NEW)
            if stat.S_IMODE(os.fstat(directory).st_mode) != stat.S_IMODE(mode):
                os.fchmod(directory, stat.S_IMODE(mode))
            if found.st_mtime_ns != mtime_ns:
                os.utime(directory, ns=(atime_ns, mtime_ns))

    def _set_directory_attributes(self, path: bytes, directory: int, mode: int, *, is_new: bool) -> int:
        """Give a directory the attributes that arrived. Return the mode that it may have."""
        with directory_tree.opened_directory(self._scope.tree, path) as inner:
            wanted = file_metadata.read(inner, self._scope.prepared.kinds)
        removed = EVERY_KIND if is_new else self._scope.removed_kinds
        has = file_metadata.read(directory, EVERY_KIND if is_new else self._scope.prepared.kinds)
        changes = file_metadata.changes_between(has, wanted, removed)
        if not changes:
            return mode
        if posix_acl.ACCESS in changes:
            # While an ACL is added or removed, the permissions of the group change their meaning.
            os.fchmod(directory, stat.S_IMODE(mode) & stat.S_IRWXU | stat.S_IRWXU)
        failed = file_metadata.set_attributes(directory, changes)
        self._scope.report_failed(path, failed)
        return file_metadata.safe_mode(mode, changes, failed)

    def _is_reserved(self, path: bytes) -> bool:
        """Return True for rsync's own directories, which hold half-written files."""
        return path == self._scope.prepared.temporary or path.rpartition(b"/")[2] == self._scope.prepared.partial

    def _can_move_whole(self, path: bytes) -> bool:
        """Return True where a directory that the target does not have may be moved with all its content."""
        with DirectoryTree(os.dup(self._scope.tree)) as tree:
            return all(map(self._can_move_along, tree.walk(path, skip_unreadable=False)))

    def _can_move_along(self, entry: WalkEntry) -> bool:
        basis_files, path = self._scope.prepared.basis_files, entry.full_path
        if entry.is_directory or self._is_reserved(path):
            return not self._is_reserved(path)
        # A further name of a basis file has no content of its own.
        is_linked = basis_files.count and basis_files.paths_linked_to(self._scope.tree, path, entry.status)
        return self._is_in_manifest(path) and not is_linked

    # --- entries

    def _entry(self, inner: int, outer: int, path: bytes, received: os.stat_result, basis_inode: int) -> None:
        scope = self._scope
        name = path.rpartition(b"/")[2]
        there = status_of(outer, name)
        if there is not None and self._own.is_kept(path) and not stat.S_ISDIR(received.st_mode):
            return
        if stat.S_ISDIR(received.st_mode):
            self._directory(inner, outer, path, there)
        elif scope.prepared.basis_files.is_basis_file(scope.tree, path, received, basis_inode):
            self._existing.keep(inner, outer, path, received)
        elif originals := scope.prepared.basis_files.paths_linked_to(scope.tree, path, received):
            self._existing.link(outer, path, there, originals)
        elif not self._is_in_manifest(path):
            if self._is_complete:
                self.problems.add(path, "arrived, and the storage's manifest does not name it: it was not restored")
            else:
                self.kept_back += 1
        elif there is None or scope.may_replace(there, received):
            if there is not None and _is_alike(inner, outer, name, received, there):
                has, wanted = scope.attributes(inner, outer, name)
                if not file_metadata.changes_between(has, wanted, scope.removed_kinds):
                    return
            self._refuse_untouched(path)
            scope.make_room(outer, name, there)
            move_entry(scope, inner, outer, path, received)

    def _directory(self, inner: int, outer: int, path: bytes, there: os.stat_result | None) -> None:
        name = path.rpartition(b"/")[2]
        if there is not None and not stat.S_ISDIR(there.st_mode):
            if self._scope.overwrite == "never" or self._own.is_kept(path):
                return
            self._refuse_untouched(path)
            os.unlink(name, dir_fd=outer)
            there = None
        if there is not None:
            self._steps.push(_ENTER + path)
            return
        if self._moves_whole_directories:
            if not self._can_move_whole(path):
                # Checked once: a storage must not be able to make us check every level of a deep tree again.
                self._moves_whole_directories = False
            elif move_directory(inner, outer, name):
                return
        os.mkdir(name, 0o700, dir_fd=outer)
        with directory_tree.opened_directory(outer, name) as made:
            posix_acl.clear(made)
        self._steps.push(_ENTER_NEW + path)


def _outermost(paths: Sequence[bytes]) -> list[bytes]:
    """Return the paths without those below another one, which have been moved with it."""
    requested = set(paths)
    return [
        path
        for path in dict.fromkeys(paths)
        if not any(path[:end] in requested for end, byte in enumerate(path) if byte == ord("/"))
    ]


def _with_parents(path: bytes) -> Iterator[bytes]:
    while path:
        yield path
        path = path.rpartition(b"/")[0]


def _is_empty_directory(directory: int, name: bytes) -> bool:
    try:
        with directory_tree.opened_directory(directory, name) as descriptor, os.scandir(descriptor) as entries:
            return next(entries, None) is None
    except NotADirectoryError:
        return False


def _is_alike(inner: int, outer: int, name: bytes, received: os.stat_result, there: os.stat_result) -> bool:
    """Return True where the target already has the same link or special file, so that it may stay."""
    if stat.S_ISREG(received.st_mode) or (received.st_mode, received.st_uid, received.st_gid, received.st_mtime_ns) != (
        there.st_mode,
        there.st_uid,
        there.st_gid,
        there.st_mtime_ns,
    ):
        return False
    if stat.S_ISLNK(received.st_mode):
        return os.readlink(name, dir_fd=inner) == os.readlink(name, dir_fd=outer)
    return received.st_rdev == there.st_rdev
