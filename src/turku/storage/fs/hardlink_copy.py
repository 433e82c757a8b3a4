"""A copy of a tree by hard links, with new directories.

Making a link is little work for the program and much for the kernel, so several threads share it.
"""

import errno
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from turku.core.filesystem.directory_tree import DirectoryTree
from turku.core.filesystem.paths import joined
from turku.core.filesystem.spool import Stack
from turku.storage.fs import attributes, clone, tree

_THREADS_LIMIT: Final = 4
_ENTRIES_BETWEEN_QUESTIONS: Final = 100
GoOn = Callable[[int], bool]
"""A callback, called now and then by one thread at a time with the number of directories made. False stops the copy."""


class CopyStopped(Exception):
    """The ``go_on`` callback stopped the copy. What was made of the tree is of no use."""


def link_tree(source: Path, target: Path, go_on: GoOn = lambda _directories: True) -> None:
    """Create the directory ``target`` with a hard link to everything in ``source``, and new directories.

    A file that can have no more names is copied, once for as many names as the copy can have. Raises OSError,
    CopyStopped if ``go_on`` returns False, and what ``go_on`` raises.
    """
    tree.make_directory(target)
    with Stack() as waiting, Stack() as unfinished:
        _TreeLinker(source, target, go_on, waiting, unfinished).run()


class _TreeLinker:
    """The shared state of the threads. A directory waits until one thread takes it, and that thread alone links it."""

    def __init__(self, source: Path, target: Path, go_on: GoOn, waiting: Stack, unfinished: Stack) -> None:
        self._source = source
        self._target = target
        self._go_on = go_on
        self._waiting = waiting
        self._unfinished = unfinished
        """Directories that nobody could enter if they had their modes already. They get them last."""
        self._condition = threading.Condition()
        self._active = 0
        self._directories = 1
        self._unasked = 0
        """The number of entries made since ``go_on`` was called."""
        self._error: BaseException | None = None
        self._copies: dict[int, tuple[bytes, bytes]] = {}
        """The path of the copy of each file that can have no more names, by the file's inode."""

    def run(self) -> None:
        self._waiting.push(b"")
        count = min(_THREADS_LIMIT, len(os.sched_getaffinity(0)))
        threads = [threading.Thread(target=self._work, name="hard links", daemon=True) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self._error is not None:
            raise self._error
        with DirectoryTree(self._source) as base, DirectoryTree(self._target) as made:
            # Directories inside others first.
            while (path := self._unfinished.pop()) is not None:
                _finish(base.directory(path), made.directory(path))
        self._enqueue(b"", [], _ENTRIES_BETWEEN_QUESTIONS)

    def _work(self) -> None:
        try:
            with (
                DirectoryTree(self._source) as base,
                DirectoryTree(self._target) as made,
                DirectoryTree(self._target) as copies,
            ):
                while (path := self._next()) is not None:
                    self._link_directory(base.directory(path), made.directory(path), path, copies)
                    with self._condition:
                        self._active -= 1
                        self._condition.notify_all()
        except BaseException as error:
            with self._condition:
                self._error = self._error or error
                self._condition.notify_all()

    def _next(self) -> bytes | None:
        with self._condition:
            while self._error is None:
                path = self._waiting.pop()
                if path is not None:
                    self._active += 1
                    return path
                if not self._active:
                    break
                self._condition.wait()
            return None

    def _link_directory(self, source: int, target: int, path: bytes, copies: DirectoryTree) -> None:
        """Link the entries of the directory. The directories inside it are created empty, and wait to be linked."""
        can_be_entered = os.geteuid() == 0 or os.fstat(source).st_mode & stat.S_IRWXU == stat.S_IRWXU
        if not can_be_entered:
            with self._condition:
                self._unfinished.push(path)
        inner: list[bytes] = []
        count = 0
        with os.scandir(source) as listing:
            for entry in listing:
                if count == _ENTRIES_BETWEEN_QUESTIONS:
                    self._enqueue(path, inner, count)
                    count = 0
                count += 1
                name = os.fsencode(entry.name)
                if entry.is_dir(follow_symlinks=False):
                    os.mkdir(name, 0o700, dir_fd=target)
                    inner.append(name)
                    continue
                try:
                    os.link(name, name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
                except OSError as error:
                    if error.errno != errno.EMLINK:
                        raise
                    with self._condition:
                        self._link_copy(source, target, (path, name), entry.inode(), copies)
        self._enqueue(path, inner, count)
        if can_be_entered:
            _finish(source, target)

    def _link_copy(
        self, source: int, target: int, place: tuple[bytes, bytes], inode: int, copies: DirectoryTree
    ) -> None:
        name = place[1]
        former = self._copies.get(inode)
        if former is None:
            is_linked = clone.link_or_copy(source, name, target, name)
        else:
            is_linked = clone.link_or_copy(copies.directory(former[0]), former[1], target, name)
        if not is_linked:
            self._copies[inode] = place

    def _enqueue(self, path: bytes, made: list[bytes], count: int) -> None:
        """Queue the directories made in ``path`` for linking. ``count`` is the number of entries made."""
        with self._condition:
            self._waiting.push_all(joined(path, name) for name in made)
            self._directories += len(made)
            made.clear()
            self._condition.notify_all()
            self._unasked += count
            if self._unasked >= _ENTRIES_BETWEEN_QUESTIONS:
                self._unasked = 0
                if not self._go_on(self._directories):
                    raise CopyStopped


def _finish(source: int, target: int) -> None:
    """Copy a directory's attributes. All of its entries are there by now, so its times stay."""
    attributes.copy(os.fstat(source), source, target)
