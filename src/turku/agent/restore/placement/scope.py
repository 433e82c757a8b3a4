"""The scope of a placement: the directories, the rules and the problems that all of its parts share.

Its functions move one received entry to its place: by a rename, or by a copy onto another file system.
"""

import errno
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from turku.agent.restore import file_metadata
from turku.agent.restore.file_metadata import EVERY_KIND
from turku.agent.restore.result import ProblemList
from turku.agent.restore.staging.target import PreparedTarget
from turku.core.filesystem import directory_tree, holes, posix_acl, removal
from turku.core.filesystem.paths import joined
from turku.errors import InvalidValue
from turku.policy import names
from turku.protocol.restore_messages import Overwrite, ParentDirectory, Settable, path_bytes, time_ns


@dataclass(frozen=True)
class PlacementScope:
    """The prepared target, and the rules for entries that it already has."""

    prepared: PreparedTarget
    overwrite: Overwrite
    replaces_directories: bool
    """A directory that is not empty may give way to something that is not a directory."""
    removed_kinds: frozenset[Settable]
    """The kinds of attributes that are removed from a file which the snapshot has without them."""
    problems: ProblemList = field(default_factory=ProblemList)
    is_root: bool = field(default_factory=lambda: os.geteuid() == 0)
    group: int = field(default_factory=os.getegid)

    @property
    def target(self) -> int:
        """The descriptor of the open target."""
        return self.prepared.descriptor

    @property
    def tree(self) -> int:
        """The descriptor of the received tree in the staging directory."""
        return self.prepared.staging.tree

    def may_replace(self, there: os.stat_result, received: os.stat_result) -> bool:
        """Return True where the entry of the target may be replaced by the received one."""
        if self.overwrite == "older" and stat.S_ISREG(there.st_mode) and stat.S_ISREG(received.st_mode):
            return there.st_mtime_ns <= received.st_mtime_ns
        return self.overwrite != "never"

    def make_room(self, outer: int, name: bytes, there: os.stat_result | None) -> None:
        """Remove a directory of the target that stands in the way. One that is not empty goes only with ``--delete``.

        Raises OSError.
        """
        if there is None or not stat.S_ISDIR(there.st_mode):
            return
        if self.replaces_directories:
            removal.remove(outer, name)
        else:
            os.rmdir(name, dir_fd=outer)

    def attributes(self, inner: int, outer: int, name: bytes) -> tuple[dict[str, bytes], dict[str, bytes]]:
        """Return the attributes that a name has in the target, and those that arrived for it."""
        has, wanted = (
            file_metadata.read(file_metadata.proc_path(each, name), self.prepared.kinds) for each in (outer, inner)
        )
        return has, wanted

    def report_failed(self, path: bytes, failed: Sequence[str]) -> None:
        """Add the attributes that could not be set to the problems."""
        if failed:
            self.problems.add(path, f"is restored without {', '.join(sorted(failed))}, which cannot be set there")


def status_of(directory: int, name: bytes) -> os.stat_result | None:
    """Return the status of a name in an open directory without following a link, or None where it is missing."""
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


class ParentDirectories:
    """The directories above the restored paths, as the storage described them."""

    def __init__(self, scope: PlacementScope, described: Iterable[ParentDirectory]) -> None:
        self._scope = scope
        self._described: dict[bytes, ParentDirectory] = {}
        self._created: list[tuple[bytes, ParentDirectory]] = []
        for parent in described:
            with suppress(InvalidValue):
                self._described[names.path_inside(path_bytes(parent.path))] = parent

    def open(self, path: bytes) -> int:
        """Open a directory of the target, and create it and those above it where they are missing. Raises OSError."""
        descriptor = directory_tree.open_directory(self._scope.target, b"")
        done = b""
        for part in path.split(b"/") if path else ():
            done = joined(done, part)
            try:
                try:
                    inner = directory_tree.open_directory(descriptor, part)
                except FileNotFoundError:
                    os.mkdir(part, 0o700, dir_fd=descriptor)
                    inner = directory_tree.open_directory(descriptor, part)
                    posix_acl.clear(inner)
                    if (parent := self._described.get(done)) is not None:
                        self._created.append((done, parent))
            finally:
                os.close(descriptor)
            descriptor = inner
        return descriptor

    def finish(self) -> None:
        """Give the created directories their owners, modes and times. Call this after everything was placed."""
        for path, parent in reversed(self._created):
            with suppress(OSError):
                with directory_tree.opened_directory(self._scope.target, path) as descriptor:
                    if self._scope.is_root:
                        os.fchown(descriptor, parent.uid, parent.gid)
                    os.fchmod(descriptor, stat.S_IMODE(parent.mode))
                    modified_ns = time_ns(parent.modified)
                    os.utime(descriptor, ns=(modified_ns, modified_ns))
                if parent.has_acl:
                    self._scope.problems.add(
                        path, "was created without its ACL, because only paths below it are restored"
                    )


def move_entry(scope: PlacementScope, inner: int, outer: int, path: bytes, received: os.stat_result) -> None:
    """Move an entry that is not a directory. ``inner`` and ``outer`` are its open directories in tree and target.

    Raises OSError.
    """
    name = path.rpartition(b"/")[2]
    try:
        os.rename(name, name, src_dir_fd=inner, dst_dir_fd=outer)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _copy_across(scope, inner, outer, path, received)


def move_directory(inner: int, outer: int, name: bytes) -> bool:
    """Move a directory with all its content by one rename. Return False where it lies on another file system.

    A directory that its owner, not being root, may not write to can be moved as well. Raises OSError.
    """
    try:
        _rename_directory(inner, outer, name)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        return False
    return True


def _rename_directory(inner: int, outer: int, name: bytes) -> None:
    try:
        os.rename(name, name, src_dir_fd=inner, dst_dir_fd=outer)
    except PermissionError:
        with directory_tree.opened_directory(inner, name) as directory:
            mode = stat.S_IMODE(os.fstat(directory).st_mode)
            removal.make_writable(directory)
            os.rename(name, name, src_dir_fd=inner, dst_dir_fd=outer)
            os.fchmod(directory, mode)


def copy_file(
    source: int, directory: int, name: bytes, wanted: os.stat_result, attributes: dict[str, bytes]
) -> list[str]:
    """Copy an open file with its holes to a new name. Return the attributes that could not be set. Raises OSError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags, 0o600, dir_fd=directory)
    try:
        holes.copy_content(source, descriptor)
        return file_metadata.apply(descriptor, wanted, attributes, has={}, removed=())
    finally:
        os.close(descriptor)


def _copy_across(scope: PlacementScope, inner: int, outer: int, path: bytes, received: os.stat_result) -> None:
    """Move an entry onto another file system, which is mounted in the target."""
    name = path.rpartition(b"/")[2]
    attributes = file_metadata.read(file_metadata.proc_path(inner, name), EVERY_KIND)
    with _scratch_directory(outer, scope.prepared.staging.name) as scratch:
        if stat.S_ISREG(received.st_mode):
            source = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=inner)
            try:
                scope.report_failed(path, copy_file(source, scratch, name, received, attributes))
            finally:
                os.close(source)
        else:
            if stat.S_ISLNK(received.st_mode):
                os.symlink(os.readlink(name, dir_fd=inner), name, dir_fd=scratch)
            else:
                os.mknod(name, received.st_mode, received.st_rdev, dir_fd=scratch)
            if scope.is_root:
                os.chown(name, received.st_uid, received.st_gid, dir_fd=scratch, follow_symlinks=False)
            if not stat.S_ISLNK(received.st_mode):
                way = os.fsdecode(file_metadata.proc_path(scratch, name))
                failed = file_metadata.apply(way, received, attributes, has={}, removed=(), sets_owner=False)
                scope.report_failed(path, failed)
            times = (received.st_atime_ns, received.st_mtime_ns)
            os.utime(name, ns=times, dir_fd=scratch, follow_symlinks=False)
        os.rename(name, name, src_dir_fd=scratch, dst_dir_fd=outer)


@contextmanager
def _scratch_directory(directory: int, prefix: bytes) -> Iterator[int]:
    """Make a directory in the open one for the length of the block. Nobody else can change its content.

    A user who may write to the open directory could otherwise replace what is made there by a link. Raises OSError.
    """
    name = prefix + b"-" + os.urandom(4).hex().encode()
    os.mkdir(name, 0o700, dir_fd=directory)
    try:
        scratch = os.open(name, directory_tree.DIRECTORY_FLAGS, dir_fd=directory)
        try:
            found = os.fstat(scratch)
            if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
                raise OSError(errno.EPERM, "somebody else changes the directory meanwhile", os.fsdecode(name))
            posix_acl.clear(scratch)
            yield scratch
        finally:
            os.close(scratch)
    finally:
        with suppress(OSError):
            removal.remove(directory, name)
