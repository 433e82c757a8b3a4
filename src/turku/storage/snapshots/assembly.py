"""Assembling a new snapshot's tree from its base and from what rsync brought into the staging directory.

rsync never writes into the tree: a machine whose daemon lies could otherwise have it change a file that other snapshots
share. Files are linked, moved and unlinked here, and never opened for writing. Directories are each tree's own, so
theirs may change. The plan says which paths are taken: whatever else lies in the staging directory is left there.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Self

from turku.core.cancellation import NEVER, Cancellation
from turku.errors import TurkuError
from turku.storage.changes import Change, Kind
from turku.storage.fs import attributes, copy
from turku.storage.fs import tree as fs
from turku.storage.fs.remove import open_changeable
from turku.storage.fs.tree import Tree, joined, split

_LOOK_SECONDS = 0.2
_DEPTH_LIMIT = 64
"""Levels held open at once."""

Tell = Callable[[bytes], None]
"""Is told the path of what is in the new tree no more."""


class IncrementalFailed(Exception):
    """The tree cannot be assembled from the base; it is of no use, and nothing else was changed."""


class HardlinkCopy:
    """A copy of the tree ``base`` by hard links, made in the background once it was begun.

    A context manager; leaving it ends what is under way.
    """

    def __init__(self, base: Path, tree: Path) -> None:
        self.tree = tree
        self._base = base
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

        Raises IncrementalFailed, as for a file system without hard links, and what ``cancellation`` raises.
        """
        self.begin()
        while self._thread.is_alive():
            self._thread.join(_LOOK_SECONDS)
            cancellation.check()
        if self._failure is not None:
            raise IncrementalFailed(f"the base cannot be copied by hard links: {self._failure}")

    def _run(self) -> None:
        self._begun.wait()
        if self._is_over.is_set():
            return
        try:
            copy.link_tree(self._base, self.tree, lambda: not self._is_over.is_set())
        except copy.Stopped:
            return
        except OSError as error:
            self._failure = f"{error.strerror or error}: {error.filename!r}"
        except TurkuError as error:
            self._failure = error.message
        else:
            self._failure = None


def apply(staging: Path, tree: Path, planned: Iterable[Change], tell_deleted: Tell) -> None:
    """Let ``tree`` be without what was deleted, and with what changed as it is in ``staging``, from which it is moved.

    A planned entry that is not in the staging directory is gone from the machine meanwhile. A directory gets owner,
    mode, attributes and times of the one in ``staging``. What the coming and going of entries did to the times of other
    directories is undone. Raises IncrementalFailed.
    """
    directories: list[bytes] = []
    try:
        with _Chain(staging) as staged, _Chain(tree) as target:
            for change in planned:
                status = None if change.kind is Kind.DELETED else staged.status(change.path)
                if status is None:
                    target.remove(change.path, tell_deleted, also_directory=change.kind is Kind.DELETED)
                elif stat.S_ISDIR(status.st_mode):
                    target.make_directory(change.path, tell_deleted)
                    directories.append(change.path)
                else:
                    _move(staged, target, change.path, tell_deleted)
        # Those within others first: opening one may change the mode of those above for a moment.
        with _Chain(staging) as staged, _Chain(tree) as target:
            for path in sorted(directories, key=lambda each: 0 if each == b"." else each.count(b"/") + 1, reverse=True):
                target.take_attributes(staged, path)
    except OSError as error:
        raise IncrementalFailed(f"{error.strerror or error}: {error.filename!r}") from error


def remove(tree: Path, paths: Iterable[bytes]) -> None:
    """Remove these files from a tree that rsync is to bring up to date."""
    with _Chain(tree) as target:
        for path in paths:
            target.remove(path, lambda _path: None, also_directory=False)


class _Chain:
    """The directories of a tree by their paths, those on the way to the last one held open.

    A directory that its owner may not change is opened all the same; when the chain leaves it, it has its mode and
    times again.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._links: list[tuple[bytes, int, os.stat_result]] = []

    def __enter__(self) -> Self:
        with fs.opened(self._root.parent) as parent:
            name = os.fsencode(self._root.name)
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
            self._links.append((b"", open_changeable(name, parent=parent), status))
        return self

    def __exit__(self, *_error: object) -> None:
        while self._links:
            self._leave()

    def status(self, path: bytes) -> os.stat_result | None:
        """Return what lies at the path; None for nothing."""
        if path == b".":
            return self._links[0][2]
        parent, name = self.parent(path)
        with suppress(FileNotFoundError):
            return None if parent is None else os.stat(name, dir_fd=parent, follow_symlinks=False)
        return None

    def parent(self, path: bytes) -> tuple[int | None, bytes]:
        """Return the open directory that has the path, None where there is none, and the name in it."""
        # rsync prints the lines of a plan, but a machine's messages can have it print one about any path.
        if not fs.is_inside(path):
            raise IncrementalFailed("the plan has a path that is none of a tree's")
        directory, name = split(path)
        return self._directory(directory), name

    def _directory(self, path: bytes) -> int | None:
        wanted = path.split(b"/") if path else []
        if len(wanted) >= _DEPTH_LIMIT:
            raise IncrementalFailed("directories lie too deep")
        shared = 0
        while shared < min(len(wanted), len(self._links) - 1) and self._links[shared + 1][0] == wanted[shared]:
            shared += 1
        while len(self._links) > shared + 1:
            self._leave()
        for part in wanted[shared:]:
            parent = self._links[-1][1]
            try:
                status = os.stat(part, dir_fd=parent, follow_symlinks=False)
                if not stat.S_ISDIR(status.st_mode):
                    return None
                self._links.append((part, open_changeable(part, parent=parent), status))
            except FileNotFoundError:
                return None
        return self._links[-1][1]

    def remove(self, path: bytes, tell: Tell, *, also_directory: bool) -> None:
        """Remove what lies at the path, where anything does."""
        status = self.status(path)
        parent, name = self.parent(path)
        if status is None or parent is None or path == b".":
            return
        if also_directory or not stat.S_ISDIR(status.st_mode):
            _remove(parent, name, status, path, tell, depth=len(self._links))

    def make_directory(self, path: bytes, tell: Tell) -> None:
        """Let a directory be at the path, in place of anything else."""
        status = self.status(path)
        if path == b"." or (status is not None and stat.S_ISDIR(status.st_mode)):
            return
        self.remove(path, _all_but(path, tell), also_directory=False)
        parent, name = self.parent(path)
        if parent is None:
            raise FileNotFoundError(errno.ENOENT, "its directory is not in the new tree", os.fsdecode(path))
        os.mkdir(name, 0o700, dir_fd=parent)

    def take_attributes(self, other: _Chain, path: bytes) -> None:
        """Give the directory at the path what the one of the other tree has, in place of what it had."""
        inner = b"" if path == b"." else path
        source, target = other._directory(inner), self._directory(inner)
        if source is None or target is None:
            return
        name, _descriptor, _former = self._links[-1]
        status = other._links[-1][2]
        attributes.copy(status, source, target)
        # Times and mode are those to leave it with.
        self._links[-1] = (name, target, status)

    def _leave(self) -> None:
        _name, descriptor, status = self._links.pop()
        try:
            if stat.S_IMODE(os.fstat(descriptor).st_mode) != stat.S_IMODE(status.st_mode):
                os.fchmod(descriptor, stat.S_IMODE(status.st_mode))
            os.utime(descriptor, ns=(status.st_atime_ns, status.st_mtime_ns))
        finally:
            os.close(descriptor)


def _move(staged: _Chain, target: _Chain, path: bytes, tell: Tell) -> None:
    target.remove(path, _all_but(path, tell), also_directory=True)
    source, name = staged.parent(path)
    directory, _name = target.parent(path)
    if source is None or directory is None:
        raise FileNotFoundError(errno.ENOENT, "its directory is not in the new tree", os.fsdecode(path))
    os.rename(name, name, src_dir_fd=source, dst_dir_fd=directory)


def _remove(parent: int, name: bytes, status: os.stat_result, path: bytes, tell: Tell, *, depth: int) -> None:
    if not stat.S_ISDIR(status.st_mode):
        os.unlink(name, dir_fd=parent)
        tell(path)
        return
    if depth > _DEPTH_LIMIT:
        raise IncrementalFailed("directories lie too deep")
    directory = open_changeable(name, parent=parent)
    try:
        for inner in fs.names_in(directory):
            inner_status = os.stat(inner, dir_fd=directory, follow_symlinks=False)
            _remove(directory, inner, inner_status, joined(path, inner), tell, depth=depth + 1)
    finally:
        os.close(directory)
    os.rmdir(name, dir_fd=parent)
    tell(path)


def _all_but(path: bytes, tell: Tell) -> Tell:
    return lambda each: None if each == path else tell(each)


# --- where all of the source was fetched


def share(base: Path, tree: Path, *, compares_contents: bool) -> None:
    """Let each file of the complete ``tree`` that is as it is in ``base`` be the very same file.

    Names that share a file in ``tree`` go on sharing one, and no others do. Size, times, owner, mode and attributes
    tell that a file is the same, and its content where ``compares_contents`` says so. Raises OSError.
    """
    with Tree(base) as old, Tree(tree) as new, Tree(os.dup(new.root)) as others:
        sharing = _Sharing(others, compares_contents=compares_contents)
        for path in [b"", *(each.full_path for each in new.walk() if each.is_directory)]:
            directory, former = new.directory(path), old.find_directory(path)
            if former is not None:
                before = os.fstat(directory)
                sharing.share_directory(path, directory, former)
                os.utime(directory, ns=(before.st_atime_ns, before.st_mtime_ns))


class _Sharing:
    def __init__(self, tree: Tree, *, compares_contents: bool) -> None:
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
            old, new = fs.open_file_in(former, name), -1
            try:
                new = fs.open_file_in(directory, name)
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
