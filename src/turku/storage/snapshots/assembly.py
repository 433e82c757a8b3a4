"""Assembling a new snapshot's tree from its base and from the staging directory.

rsync never writes to the tree: otherwise a machine with a lying daemon could make it change a file that other snapshots
share. Files are linked, moved and unlinked here, and never opened for writing. Each tree has directories of its own, so
these may change. Only planned paths are taken from the staging directory.
"""

import errno
import logging
import os
import stat
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Self

from turku.core.cancellation import NEVER, Cancellation
from turku.core.filesystem.directory_tree import DirectoryTree
from turku.core.filesystem.paths import is_entry_path, split
from turku.core.filesystem.spool import Stack
from turku.errors import TurkuError
from turku.storage.fs import attributes, clone, hardlink_copy
from turku.storage.fs import tree as fs
from turku.storage.fs.remove import open_changeable
from turku.storage.rsync.change_log import Change, ChangeKind

_CHECK_SECONDS = 0.2
_LOG = logging.getLogger(__name__)


class IncrementalFailed(Exception):
    """The tree cannot be assembled from the base. It is of no use, and nothing else was changed."""


class HardlinkCopy:
    """A copy of the tree ``base`` by hard links. A context manager that ends a copy that is not finished."""

    def __init__(self, base: Path, tree: Path, check_limits: Callable[[int], None] = lambda _directories: None) -> None:
        """``check_limits`` is called now and then with the number of new directories. It raises to stop the copy."""
        self.tree = tree
        self.directories = 0
        """The number of directories made so far. Nothing else takes space of its own."""
        self._base = base
        self._check_limits = check_limits
        self._refusal: TurkuError | None = None
        self._begun = threading.Event()
        self._is_over = threading.Event()
        self._failure: str | None = "it was ended"
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.end()

    def end(self) -> None:
        """End the copy if it is running. Repeated calls do no harm."""
        self._is_over.set()
        self._begun.set()
        self._thread.join()

    def begin(self) -> None:
        """Begin the copy in the background. Any thread may call this, repeatedly."""
        self._begun.set()

    def finish(self, cancellation: Cancellation = NEVER) -> None:
        """Wait until the copy is complete.

        Raises IncrementalFailed, for instance on a file system without hard links, and whatever ``cancellation`` and
        ``check_limits`` raise.
        """
        self.begin()
        while self._thread.is_alive():
            self._thread.join(_CHECK_SECONDS)
            cancellation.check()
        if self._refusal is not None:
            raise self._refusal
        if self._failure is not None:
            raise IncrementalFailed(f"the base cannot be copied by hard links: {self._failure}")

    def _run(self) -> None:
        self._begun.wait()
        if self._is_over.is_set():
            return
        try:
            hardlink_copy.link_tree(self._base, self.tree, self._may_continue)
        except hardlink_copy.CopyStopped:
            return
        except OSError as error:
            self._failure = f"{error.strerror or error}: {error.filename!r}"
        except TurkuError as error:
            self._failure = error.message
        except Exception as error:
            _LOG.exception("the base cannot be copied by hard links")
            self._failure = f"internal error: {type(error).__name__}: {error}"
        else:
            self._failure = None

    def _may_continue(self, directories: int) -> bool:
        self.directories = directories
        try:
            self._check_limits(directories)
        except TurkuError as error:
            self._refusal = error
            return False
        return not self._is_over.is_set()


OnDeleted = Callable[[bytes], None]
"""Is called with the path of each entry that is removed from the tree."""


class ChangeableTree(DirectoryTree):
    """A tree whose directories can be changed even without write permission.

    A directory that is left gets back the mode and times that it had when it was entered.
    """

    def __init__(self, root: Path) -> None:
        self._left_with: dict[int, os.stat_result] = {}
        with fs.opened(root.parent) as parent:
            super().__init__(self._enter(parent, os.fsencode(root.name)))

    def _enter(self, parent: int, name: bytes) -> int:
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if not stat.S_ISDIR(status.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), os.fsdecode(name))
        descriptor = open_changeable(name, parent=parent)
        self._left_with[descriptor] = status
        return descriptor

    def _leave(self, descriptor: int) -> None:
        status = self._left_with.pop(descriptor)
        try:
            if stat.S_IMODE(os.fstat(descriptor).st_mode) != stat.S_IMODE(status.st_mode):
                os.fchmod(descriptor, stat.S_IMODE(status.st_mode))
            os.utime(descriptor, ns=(status.st_atime_ns, status.st_mtime_ns))
        finally:
            os.close(descriptor)

    def leave_as(self, descriptor: int, status: os.stat_result) -> None:
        """Give the open directory this mode and these times when it is left."""
        self._left_with[descriptor] = status

    def find(self, path: bytes) -> os.stat_result | None:
        """Return the status of the entry at the path. None if there is none."""
        with suppress(FileNotFoundError, NotADirectoryError):
            return self.status(path)
        return None

    def remove(self, path: bytes, on_deleted: OnDeleted, *, also_directory: bool) -> None:
        """Remove the entry at the path with all its content, if there is one. The tree itself is not removed."""
        status = self.find(path)
        if not path or status is None:
            return
        is_directory = stat.S_ISDIR(status.st_mode)
        if is_directory and not also_directory:
            return
        with Stack() as found:
            found.push(path)
            for each in self.walk(path, skip_unreadable=False) if is_directory else ():
                found.push(each.full_path)
            while (inner := found.pop()) is not None:
                self.remove_one(inner)
                on_deleted(inner)

    def remove_one(self, path: bytes) -> None:
        """Remove the entry or empty directory at the path inside the tree. Raises OSError."""
        directory, name = split(path)
        parent = self.directory(directory)
        if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            os.rmdir(name, dir_fd=parent)
        else:
            os.unlink(name, dir_fd=parent)

    def make_directory(self, path: bytes, on_deleted: OnDeleted) -> bool:
        """Make a directory at the path in place of anything else. Return True if it was made.

        Raises FileNotFoundError if its parent does not exist.
        """
        status = self.find(path)
        if status is not None and stat.S_ISDIR(status.st_mode):
            return False
        self.remove(path, all_but(path, on_deleted), also_directory=False)
        directory, name = split(path)
        os.mkdir(name, 0o700, dir_fd=self.directory(directory))
        return True

    def link(self, existing: bytes, path: bytes, on_deleted: OnDeleted) -> None:
        """Make ``path`` a hard link to the entry at ``existing``, in place of anything else.

        If the entry can have no further link, it is copied. Raises FileNotFoundError if there is no entry.
        """
        self.remove(path, all_but(path, on_deleted), also_directory=True)
        (source, name), (target, new_name) = split(existing), split(path)
        # Opening the directory of one path may close that of the other.
        opened = os.dup(self.directory(source))
        try:
            clone.link_or_copy(opened, name, self.directory(target), new_name)
        finally:
            os.close(opened)

    def take_attributes(self, other: "ChangeableTree", path: bytes) -> None:
        """Give the directory at the path the attributes, mode and times of the one in the other tree."""
        try:
            source, target = other.directory(path), self.directory(path)
        except (FileNotFoundError, NotADirectoryError):
            return
        # Mode and times are set when the directory is left.
        self._left_with[target] = other._left_with[source]
        attributes.copy(self._left_with[target], source, target)


def all_but(path: bytes, on_deleted: OnDeleted) -> OnDeleted:
    """Return a callback that skips the path, because another entry takes its place."""
    return lambda each: None if each == path else on_deleted(each)


def apply(
    staging: Path,
    tree: Path,
    planned: Iterable[Change],
    on_deleted: OnDeleted,
    *,
    stays: Callable[[bytes], bool] = lambda _path: False,
) -> int:
    """Remove deleted entries from ``tree`` and move changed ones from ``staging`` into it.

    A planned entry that is not in the staging directory was deleted on the machine meanwhile, unless ``stays`` returns
    True because it could not be read. Then it stays as it was. A directory gets owner, mode, attributes and times of
    the one in ``staging``. Changed times of other directories are restored. Returns the number of new directories.
    Raises IncrementalFailed.
    """
    made = 0
    try:
        with ChangeableTree(staging) as staged, ChangeableTree(tree) as target, Stack() as directories:
            for change in planned:
                if change.link_target:
                    # The file that it links to may not be moved yet.
                    continue
                path = _inside(change.path)
                status = None if change.kind is ChangeKind.DELETED else staged.find(path)
                if status is None and change.kind is not ChangeKind.DELETED and stays(path):
                    continue
                if status is None:
                    target.remove(path, on_deleted, also_directory=change.kind is ChangeKind.DELETED)
                elif stat.S_ISDIR(status.st_mode):
                    made += target.make_directory(path, on_deleted)
                    directories.push(path)
                else:
                    _move(staged, target, path, on_deleted)
            for change in planned:
                if change.link_target:
                    target.link(_inside(change.link_target), _inside(change.path), on_deleted)
            # rsync lists a directory before its content. Inner directories come first here, because opening one may
            # change the mode of those above it for a moment.
            while (inner := directories.pop()) is not None:
                target.take_attributes(staged, inner)
    except OSError as error:
        raise IncrementalFailed(f"{error.strerror or error}: {error.filename!r}") from error
    return made


def remove(tree: Path, paths: Iterable[bytes]) -> None:
    """Remove these files from a tree that rsync is going to update."""
    with ChangeableTree(tree) as target:
        for path in paths:
            target.remove(_inside(path), lambda _path: None, also_directory=False)


def remove_created(tree: Path, created: Stack) -> None:
    """Remove the entries that a run created, the last one first, so that directories are empty by their turn."""
    with ChangeableTree(tree) as target:
        while (path := created.pop()) is not None:
            # A directory with other entries, or an entry that cannot be removed, stays.
            with suppress(OSError):
                if inside := _inside(path):
                    target.remove_one(inside)


def _inside(path: bytes) -> bytes:
    """Return a path of the change log as trees have it, empty for the tree itself. Raises IncrementalFailed."""
    # A machine's messages can make rsync print a line about any path.
    if path != b"." and not is_entry_path(path):
        raise IncrementalFailed("the dry run named a path outside the tree")
    return b"" if path == b"." else path


def _move(staged: ChangeableTree, target: ChangeableTree, path: bytes, on_deleted: OnDeleted) -> None:
    there = target.find(path)
    # A rename replaces anything but a directory by itself.
    if there is not None and stat.S_ISDIR(there.st_mode):
        target.remove(path, all_but(path, on_deleted), also_directory=True)
    directory, name = split(path)
    source, destination = staged.directory(directory), target.directory(directory)
    os.rename(name, name, src_dir_fd=source, dst_dir_fd=destination)


def take_from_base(base: Path, tree: Path, paths: Iterable[bytes]) -> None:
    """Add the base's entries at these paths, with their content, where ``tree`` has none. Files are shared.

    Raises IncrementalFailed.
    """
    try:
        with ChangeableTree(tree) as target, DirectoryTree(base) as old, Stack() as directories:
            for path in paths:
                _take(old, target, _inside(path), directories)
            while (inner := directories.pop()) is not None:
                source, made = old.directory(inner), target.directory(inner)
                target.leave_as(made, os.fstat(source))
                attributes.copy(os.fstat(source), source, made)
    except OSError as error:
        raise IncrementalFailed(f"{error.strerror or error}: {error.filename!r}") from error


def _take(old: DirectoryTree, target: ChangeableTree, path: bytes, directories: Stack) -> None:
    try:
        status = old.status(path)
    except (FileNotFoundError, NotADirectoryError):
        return
    waiting = [path]
    if stat.S_ISDIR(status.st_mode):
        waiting += [each.full_path for each in old.walk(path, skip_unreadable=False)]
    for each in waiting:
        if target.find(each) is not None:
            continue
        directory, name = split(each)
        found = target.find(directory)
        if found is None or not stat.S_ISDIR(found.st_mode):
            # Its parent became something else.
            continue
        if stat.S_ISDIR(old.status(each).st_mode):
            os.mkdir(name, 0o700, dir_fd=target.directory(directory))
            directories.push(each)
        else:
            clone.link_or_copy(old.directory(directory), name, target.directory(directory), name)
