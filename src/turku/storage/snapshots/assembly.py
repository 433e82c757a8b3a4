"""Assembling a new snapshot's tree from its base and from what rsync brought into the staging directory.

rsync never writes into the tree: a machine whose daemon lies could otherwise have it change a file that other snapshots
share. Files are linked, moved and unlinked here, and never opened for writing. Directories are each tree's own, so
theirs may change. The plan says which paths are taken: whatever else lies in the staging directory is left there.
"""

from __future__ import annotations

import errno
import logging
import os
import secrets
import stat
import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self

from turku.core.cancellation import NEVER, Cancellation
from turku.core.filesystem.directory_tree import DirectoryTree, open_file_in
from turku.core.paths import is_entry_path, joined, split
from turku.core.spool import Stack
from turku.errors import TurkuError
from turku.storage.fs import attributes, clone, hardlink_copy
from turku.storage.fs import tree as fs
from turku.storage.fs.remove import open_changeable
from turku.storage.rsync.change_log import Change, ChangeKind

_LOOK_SECONDS = 0.2
_LOG = logging.getLogger(__name__)

Tell = Callable[[bytes], None]
"""Is told the path of what is in the new tree no more."""


class IncrementalFailed(Exception):
    """The tree cannot be assembled from the base; it is of no use, and nothing else was changed."""


class HardlinkCopy:
    """A copy of the tree ``base`` by hard links, made in the background once it was begun.

    A context manager; leaving it ends what is under way.
    """

    def __init__(self, base: Path, tree: Path, check_limits: Callable[[int], None] = lambda _directories: None) -> None:
        """``check`` is told now and then how many directories were made, and raises where that is too much."""
        self.tree = tree
        self.directories = 0
        """How many it has made: all else takes no room of its own."""
        self._base = base
        self._check = check_limits
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
        """End what is under way; again, and when nothing is, too."""
        self._is_over.set()
        self._begun.set()
        self._thread.join()

    def begin(self) -> None:
        """Have it done; for any thread, and again."""
        self._begun.set()

    def finish(self, cancellation: Cancellation = NEVER) -> None:
        """Return when the copy is complete.

        Raises IncrementalFailed, as for a file system without hard links, what ``cancellation`` raises, and ``check``.
        """
        self.begin()
        while self._thread.is_alive():
            self._thread.join(_LOOK_SECONDS)
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
            hardlink_copy.link_tree(self._base, self.tree, self._goes_on)
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

    def _goes_on(self, directories: int) -> bool:
        self.directories = directories
        try:
            self._check(directories)
        except TurkuError as error:
            self._refusal = error
            return False
        return not self._is_over.is_set()


def apply(
    staging: Path,
    tree: Path,
    planned: Iterable[Change],
    tell_deleted: Tell,
    *,
    stays: Callable[[bytes], bool] = lambda _path: False,
) -> int:
    """Let ``tree`` be without what was deleted, and with what changed as it is in ``staging``, from which it is moved.

    A planned entry that is not in the staging directory is gone from the machine meanwhile, unless ``stays`` says that
    it could not be read: then it stays as it was. A directory gets owner,
    mode, attributes and times of the one in ``staging``. What the coming and going of entries did to the times of other
    directories is undone. Returns how many directories it made. Raises IncrementalFailed.
    """
    made = 0
    try:
        with _ChangeableTree(staging) as staged, _ChangeableTree(tree) as target, Stack() as directories:
            for change in planned:
                if change.link_target:
                    # What it is a name of may be moved here yet.
                    continue
                path = _inside(change.path)
                status = None if change.kind is ChangeKind.DELETED else staged.find(path)
                if status is None and change.kind is not ChangeKind.DELETED and stays(path):
                    continue
                if status is None:
                    target.remove(path, tell_deleted, also_directory=change.kind is ChangeKind.DELETED)
                elif stat.S_ISDIR(status.st_mode):
                    made += target.make_directory(path, tell_deleted)
                    directories.push(path)
                else:
                    _move(staged, target, path, tell_deleted)
            for change in planned:
                if change.link_target:
                    target.link(_inside(change.link_target), _inside(change.path), tell_deleted)
            # rsync tells of a directory before what is in it: those within others come first here, as opening one may
            # change the mode of those above for a moment.
            while (inner := directories.pop()) is not None:
                target.take_attributes(staged, inner)
    except OSError as error:
        raise IncrementalFailed(f"{error.strerror or error}: {error.filename!r}") from error
    return made


def remove(tree: Path, paths: Iterable[bytes]) -> None:
    """Remove these files from a tree that rsync is to bring up to date."""
    with _ChangeableTree(tree) as target:
        for path in paths:
            target.remove(_inside(path), lambda _path: None, also_directory=False)


def remove_created(tree: Path, created: Stack) -> None:
    """Remove what a run created in a tree: the last one first, so that directories are empty when their turn comes."""
    with _ChangeableTree(tree) as target:
        while (path := created.pop()) is not None:
            # What else is in a directory, or cannot be removed, stays.
            with suppress(OSError):
                target.remove_one(_inside(path))


def _inside(path: bytes) -> bytes:
    """Return the path of a plan as trees have it: empty for the tree itself."""
    # rsync prints the lines of a plan, but a machine's messages can have it print one about any path.
    if path != b"." and not is_entry_path(path):
        raise IncrementalFailed("the plan has a path that is none of a tree's")
    return b"" if path == b"." else path


class _ChangeableTree(DirectoryTree):
    """A tree whose directories can be changed also where their owner may not.

    A directory that is left has the mode and times again that it had when it was entered.
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
        """Let the open directory have this mode and these times once it is left."""
        self._left_with[descriptor] = status

    def find(self, path: bytes) -> os.stat_result | None:
        """Return the status of what lies at the path; None for nothing."""
        with suppress(FileNotFoundError, NotADirectoryError):
            return self.status(path)
        return None

    def remove(self, path: bytes, tell: Tell, *, also_directory: bool) -> None:
        """Remove what lies at the path, where anything does, with all that is in it; the tree itself is not removed."""
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
                self._remove(inner)
                tell(inner)

    def remove_one(self, path: bytes) -> None:
        """Remove what lies at the path, be it an empty directory. Raises OSError; the tree itself is not removed."""
        if path:
            self._remove(path)

    def _remove(self, path: bytes) -> None:
        directory, name = split(path)
        parent = self.directory(directory)
        if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            os.rmdir(name, dir_fd=parent)
        else:
            os.unlink(name, dir_fd=parent)

    def make_directory(self, path: bytes, tell: Tell) -> bool:
        """Let a directory be at the path, in place of anything else; return True where it was made.

        Raises FileNotFoundError where none can be.
        """
        status = self.find(path)
        if status is not None and stat.S_ISDIR(status.st_mode):
            return False
        self.remove(path, _all_but(path, tell), also_directory=False)
        directory, name = split(path)
        os.mkdir(name, 0o700, dir_fd=self.directory(directory))
        return True

    def link(self, existing: bytes, path: bytes, tell: Tell) -> None:
        """Let ``path`` be a further name of what lies at ``existing``, in place of anything else.

        It is a copy where that can have no further name. Raises FileNotFoundError where nothing lies there.
        """
        self.remove(path, _all_but(path, tell), also_directory=True)
        (source, name), (target, new_name) = split(existing), split(path)
        # The directory of the one may be closed where that of the other is opened.
        opened = os.dup(self.directory(source))
        try:
            clone.link_or_copy(opened, name, self.directory(target), new_name)
        finally:
            os.close(opened)

    def take_attributes(self, other: _ChangeableTree, path: bytes) -> None:
        """Give the directory at the path what the one of the other tree has, in place of what it had."""
        try:
            source, target = other.directory(path), self.directory(path)
        except (FileNotFoundError, NotADirectoryError):
            return
        # Times and mode are those to leave it with.
        self._left_with[target] = other._left_with[source]
        attributes.copy(self._left_with[target], source, target)


def _move(staged: _ChangeableTree, target: _ChangeableTree, path: bytes, tell: Tell) -> None:
    there = target.find(path)
    # A rename takes the place of anything else by itself.
    if there is not None and stat.S_ISDIR(there.st_mode):
        target.remove(path, _all_but(path, tell), also_directory=True)
    directory, name = split(path)
    source, destination = staged.directory(directory), target.directory(directory)
    os.rename(name, name, src_dir_fd=source, dst_dir_fd=destination)


def _all_but(path: bytes, tell: Tell) -> Tell:
    return lambda each: None if each == path else tell(each)


# --- where all of the source was fetched


def take_from_base(base: Path, tree: Path, paths: Iterable[bytes]) -> None:
    """Let ``tree`` have what ``base`` has at these paths and it has not, with all that is below; files are shared.

    Raises IncrementalFailed.
    """
    try:
        with _ChangeableTree(tree) as target, DirectoryTree(base) as old, Stack() as directories:
            for path in paths:
                _take(old, target, _inside(path), directories)
            while (inner := directories.pop()) is not None:
                source, made = old.directory(inner), target.directory(inner)
                target.leave_as(made, os.fstat(source))
                attributes.copy(os.fstat(source), source, made)
    except OSError as error:
        raise IncrementalFailed(f"{error.strerror or error}: {error.filename!r}") from error


def _take(old: DirectoryTree, target: _ChangeableTree, path: bytes, directories: Stack) -> None:
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
            # What is above it is another thing by now.
            continue
        if stat.S_ISDIR(old.status(each).st_mode):
            os.mkdir(name, 0o700, dir_fd=target.directory(directory))
            directories.push(each)
        else:
            clone.link_or_copy(old.directory(directory), name, target.directory(directory), name)


def share_unchanged(base: Path, tree: Path, *, compares_contents: bool) -> None:
    """Let each file of the complete ``tree`` that is as it is in ``base`` be the very same file.

    Names that share a file in ``tree`` go on sharing one, and no others do. Size, times, owner, mode and attributes
    tell that a file is the same, and its content where ``compares_contents`` says so. Raises OSError.
    """
    with ExitStack() as stack:
        old, new = stack.enter_context(DirectoryTree(base)), stack.enter_context(DirectoryTree(tree))
        others = stack.enter_context(DirectoryTree(os.dup(new.root)))
        sharing = _UnchangedFiles(others, compares_contents=compares_contents)
        directories = stack.enter_context(Stack())
        directories.push(b"")
        directories.push_all(each.full_path for each in new.walk() if each.is_directory)
        while (path := directories.pop()) is not None:
            directory, former = new.directory(path), old.find_directory(path)
            if former is not None:
                before = os.fstat(directory)
                sharing.share_directory(path, directory, former)
                os.utime(directory, ns=(before.st_atime_ns, before.st_mtime_ns))


class _UnchangedFiles:
    def __init__(self, tree: DirectoryTree, *, compares_contents: bool) -> None:
        self._tree = tree
        self._compares_contents = compares_contents
        # By the inode of a file with several names: the path that has the base's file now, None where it is kept.
        self._chosen: dict[int, bytes | None] = {}
        self._taken: set[int] = set()

    def share_directory(self, path: bytes, directory: int, former: int) -> None:
        for name in fs.names_in(directory):
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if not stat.S_ISREG(status.st_mode):
                continue
            if status.st_ino in self._chosen:
                first = self._chosen[status.st_ino]
                if first is not None:
                    parent, first_name = split(first)
                    _link_over(self._tree.directory(parent), first_name, directory, name)
                continue
            is_same = self._is_same(former, directory, name, status) and _link_over(former, name, directory, name)
            if status.st_nlink > 1:
                self._chosen[status.st_ino] = joined(path, name) if is_same else None

    def _is_same(self, former: int, directory: int, name: bytes, status: os.stat_result) -> bool:
        try:
            other = os.stat(name, dir_fd=former, follow_symlinks=False)
            if _facts(other) != _facts(status) or other.st_ino in self._taken:
                return False
            old, new = open_file_in(former, name), -1
            try:
                new = open_file_in(directory, name)
                same = attributes.extended(old) == attributes.extended(new)
                same = same and (not self._compares_contents or _has_same_content(old, new))
            finally:
                os.close(old)
                if new >= 0:
                    os.close(new)
        except OSError:
            # What cannot be compared is another file.
            return False
        if same:
            self._taken.add(other.st_ino)
        return same


def _facts(status: os.stat_result) -> tuple[int, ...]:
    return (status.st_mode, status.st_uid, status.st_gid, status.st_size, status.st_mtime_ns, status.st_dev)


def _has_same_content(old: int, new: int) -> bool:
    offset = 0
    while True:
        pair = os.pread(old, 1 << 20, offset), os.pread(new, 1 << 20, offset)
        if pair[0] != pair[1]:
            return False
        if not pair[0]:
            return True
        offset += len(pair[0])


def _link_over(source: int, name: bytes, target: int, target_name: bytes) -> bool:
    """Let the name be one of the other file, too; return False where that cannot have a further one."""
    temporary = b".turku-link-" + secrets.token_hex(6).encode()
    try:
        os.link(name, temporary, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
    except OSError as error:
        if error.errno in (errno.EMLINK, errno.EXDEV, errno.EPERM):
            return False
        raise
    os.rename(temporary, target_name, src_dir_fd=target, dst_dir_fd=target)
    return True
