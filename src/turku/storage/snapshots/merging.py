"""A tree of hard links, and the entries that differ moved into it: the next snapshot of a source that changed little.

rsync never writes into the tree of links: a machine whose daemon lies could otherwise have it change a file that other
snapshots share. It writes into a new directory, as ever, and only of what differs; the rest is done here, where files
are linked, moved and unlinked, and never opened. Directories are each tree's own, so theirs may change.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Self

from turku.core import command
from turku.errors import CommandFailed
from turku.storage.changes import Change, Kind
from turku.storage.snapshots import tree_removal

_DEPTH_LIMIT = 64
"""Levels held open at once."""
_LOOK_SECONDS = 0.2
_FAKE_SUPER_PREFIX = "user.rsync."
_DIRECTORY_FLAGS = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

Tell = Callable[[bytes], None]
"""Is told the path of what is in the new tree no more."""


class CannotMerge(Exception):
    """The tree cannot be had in this way; it is of no use, and nothing else was changed."""


class Linking:
    """Links everything in ``base`` into the new directory ``tree``, in the background, once it was begun.

    A context manager; leaving it ends what is under way.
    """

    def __init__(self, base: Path, tree: Path) -> None:
        self.tree = tree
        self._base = base
        self._begun = threading.Event()
        self._is_over = threading.Event()
        self._failure: str | None = "it was ended"
        # Of its own, as the kernel ends a program with the thread that started it.
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

    def finish(self) -> None:
        """Return when the tree is complete. Raises CannotMerge, as for a file system without hard links."""
        self.begin()
        self._thread.join()
        if self._failure is not None:
            raise CannotMerge(self._failure)

    def _run(self) -> None:
        self._begun.wait()
        if self._is_over.is_set():
            return
        argv: list[str | Path] = ["cp", "--archive", "--link", "--no-target-directory", "--", self._base, self.tree]
        try:
            with command.start(argv) as child:
                while (code := child.poll()) is None and not self._is_over.is_set():
                    with suppress(CommandFailed):
                        child.wait(_LOOK_SECONDS)
                if code is not None:
                    # Its last lines are read by then.
                    child.wait(0)
                    self._failure = f"cp ended with exit code {code}: {'; '.join(child.last_lines)}" if code else None
        except CommandFailed as error:
            self._failure = error.message


def merge(brought: Path, tree: Path, asked_for: Iterable[Change], tell_deleted: Tell) -> None:
    """Let ``tree`` be what it is, without what was deleted, and with all that is in ``brought`` in its place.

    ``asked_for`` are the entries that differ. What was to be brought and was not is gone from the machine meanwhile. A
    directory gets mode, owner and time of the one in ``brought``; what its entries' coming and going did to those of
    others is undone. What was moved is in ``brought`` no more. Raises CannotMerge.
    """
    try:
        with _Open(brought) as arrived, _Open(tree, restores=True) as target:
            for change in asked_for:
                if change.kind is Kind.DELETED or not arrived.has(change.path):
                    target.remove(change.path, tell_deleted, also_directory=change.kind is Kind.DELETED)
        status = brought.lstat()
        source = tree_removal.open_directory(brought)
        try:
            merged = tree_removal.open_directory(tree)
            try:
                _move(source, merged, b"", tell_deleted, depth=1)
                _copy_attributes(source, status, merged)
            finally:
                os.close(merged)
        finally:
            os.close(source)
    except OSError as error:
        raise CannotMerge(f"{error.strerror or error}: {error.filename!r}") from error


class _Open:
    """The directories of a tree by their paths, the last one's chain held open; no symbolic link is ever followed."""

    def __init__(self, root: Path, *, restores: bool = False) -> None:
        self._restores = restores
        self._root = root
        self._chain: list[tuple[bytes, int, os.stat_result]] = []

    def __enter__(self) -> _Open:
        self._chain.append((b"", self._opened(self._root, None), self._root.lstat()))
        return self

    def __exit__(self, *_error: object) -> None:
        while self._chain:
            self._leave()

    def has(self, path: bytes) -> bool:
        """Whether there is an entry of that path, whatever it is."""
        parent, name = self._parent(path)
        if parent is None:
            return False
        try:
            os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def remove(self, path: bytes, tell: Tell, *, also_directory: bool) -> None:
        """Remove the entry of that path, where there is one."""
        parent, name = self._parent(path)
        if parent is None or path == b".":
            return
        try:
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return
        if also_directory or not stat.S_ISDIR(status.st_mode):
            _remove(parent, name, status, path, tell, depth=len(self._chain))

    def _parent(self, path: bytes) -> tuple[int | None, bytes]:
        *wanted, name = path.split(b"/")
        if len(wanted) >= _DEPTH_LIMIT:
            raise CannotMerge("directories lie too deep")
        shared = 0
        while shared < min(len(wanted), len(self._chain) - 1) and self._chain[shared + 1][0] == wanted[shared]:
            shared += 1
        while len(self._chain) > shared + 1:
            self._leave()
        for part in wanted[shared:]:
            parent = self._chain[-1][1]
            try:
                status = os.stat(part, dir_fd=parent, follow_symlinks=False)
                if not stat.S_ISDIR(status.st_mode):
                    return None, name
                self._chain.append((part, self._opened(part, parent), status))
            except FileNotFoundError:
                return None, name
        return self._chain[-1][1], name

    def _opened(self, name: bytes | Path, parent: int | None) -> int:
        if self._restores:
            return tree_removal.open_directory(name, parent=parent)
        return os.open(name, _DIRECTORY_FLAGS, dir_fd=parent)

    def _leave(self) -> None:
        _name, descriptor, status = self._chain.pop()
        try:
            if self._restores:
                if stat.S_IMODE(os.fstat(descriptor).st_mode) != stat.S_IMODE(status.st_mode):
                    os.fchmod(descriptor, stat.S_IMODE(status.st_mode))
                os.utime(descriptor, ns=(status.st_atime_ns, status.st_mtime_ns))
        finally:
            os.close(descriptor)


def _remove(parent: int, name: bytes, status: os.stat_result, path: bytes, tell: Tell, *, depth: int) -> None:
    if not stat.S_ISDIR(status.st_mode):
        os.unlink(name, dir_fd=parent)
        tell(path)
        return
    if depth > _DEPTH_LIMIT:
        raise CannotMerge("directories lie too deep")
    directory = tree_removal.open_directory(name, parent=parent)
    try:
        for inner in _names(directory):
            inner_status = os.stat(inner, dir_fd=directory, follow_symlinks=False)
            _remove(directory, inner, inner_status, path + b"/" + inner, tell, depth=depth + 1)
    finally:
        os.close(directory)
    os.rmdir(name, dir_fd=parent)
    tell(path)


def _move(source: int, target: int, prefix: bytes, tell: Tell, *, depth: int) -> None:
    """Move what is in the directory ``source`` to the same names in ``target``."""
    if depth > _DEPTH_LIMIT:
        raise CannotMerge("directories lie too deep")
    for name in _names(source):
        status = os.stat(name, dir_fd=source, follow_symlinks=False)
        try:
            former = os.stat(name, dir_fd=target, follow_symlinks=False)
        except FileNotFoundError:
            former = None
        if former is not None and stat.S_ISDIR(former.st_mode) and stat.S_ISDIR(status.st_mode):
            inner_source = tree_removal.open_directory(name, parent=source)
            try:
                inner_target = tree_removal.open_directory(name, parent=target)
                try:
                    _move(inner_source, inner_target, prefix + name + b"/", tell, depth=depth + 1)
                    _copy_attributes(inner_source, status, inner_target)
                finally:
                    os.close(inner_target)
            finally:
                os.close(inner_source)
            continue
        if former is not None:
            # Also for a file: renamed onto another name of itself, it would keep both. Its own name is told as changed.
            _remove(target, name, former, prefix + name, _all_but(prefix + name, tell), depth=depth)
        _rename(source, target, name, status)


def _names(directory: int) -> list[bytes]:
    with os.scandir(directory) as entries:
        return [os.fsencode(entry.name) for entry in entries]


def _all_but(path: bytes, tell: Tell) -> Tell:
    return lambda each: None if each == path else tell(each)


def _rename(source: int, target: int, name: bytes, status: os.stat_result) -> None:
    mode = stat.S_IMODE(status.st_mode)
    is_forbidding = stat.S_ISDIR(status.st_mode) and not mode & stat.S_IWUSR
    if is_forbidding:
        # The kernel wants leave to write in a directory that gets another parent.
        os.chmod(name, mode | stat.S_IRWXU, dir_fd=source)
    os.rename(name, name, src_dir_fd=source, dst_dir_fd=target)
    if is_forbidding:
        os.chmod(name, mode, dir_fd=target)


def _copy_attributes(source: int, status: os.stat_result, target: int) -> None:
    """Give the directory ``target`` owner, mode and time; ``status`` is what ``source`` had before it was opened."""
    former = os.fstat(target)
    if (former.st_uid, former.st_gid) != (status.st_uid, status.st_gid):
        os.fchown(target, status.st_uid, status.st_gid)
    os.fchmod(target, stat.S_IMODE(status.st_mode))
    with suppress(OSError):
        # Where ownership is kept without being root.
        for attribute in os.listxattr(source):
            if attribute.startswith(_FAKE_SUPER_PREFIX):
                os.setxattr(target, attribute, os.getxattr(source, attribute))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
