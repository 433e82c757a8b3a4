"""The directory that a restore writes into: made, held, given what rsync does not make, and tidied up after it."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from turku.agent import rsyncd
from turku.core import lock
from turku.core.log import one_line
from turku.errors import LockHeld, PolicyError, RestoreFailed
from turku.policy import names
from turku.protocol.restore_messages import PARTIAL_DIRECTORY, TEMPORARY_DIRECTORY, ParentDirectory, path_bytes

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def is_free(directory: Path) -> bool:
    """Whether nothing can be overwritten there: it is missing, empty, or what an interrupted restore left."""
    try:
        with os.scandir(directory) as entries:
            return is_interrupted(directory) or next(entries, None) is None
    except FileNotFoundError:
        return True
    except OSError as error:
        raise RestoreFailed(f"{directory} cannot be restored into: {error.strerror}") from error


def is_interrupted(directory: Path) -> bool:
    """Whether a restore into the directory is under way, or was interrupted."""
    return (directory / TEMPORARY_DIRECTORY).is_dir() and not (directory / TEMPORARY_DIRECTORY).is_symlink()


class Target:
    """A directory that is being restored into."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.was_interrupted = is_interrupted(directory)
        self.was_empty = is_free(directory) and not self.was_interrupted
        self._made: list[tuple[bytes, ParentDirectory]] = []
        self._partial: set[bytes] = set()

    def prepare(self, paths: Sequence[bytes], parents: Iterable[ParentDirectory]) -> None:
        """Let what rsync needs be there: the directory for what is half written, and those above the paths.

        Raises RestoreFailed.
        """
        temporary = self.directory / TEMPORARY_DIRECTORY
        try:
            if temporary.is_dir() and not temporary.is_symlink():
                shutil.rmtree(temporary)
            temporary.mkdir(mode=0o700)
            self._make_parents(paths, parents)
        except OSError as error:
            raise RestoreFailed(
                f"cannot write into {self.directory}: {error.strerror or error}",
                hint="as root everything can be written; --to names another directory",
            ) from error

    def links(self, paths: Sequence[bytes]) -> list[bytes]:
        """The links to directories at and below the paths, where rsync may not follow one.

        A storage must not be led by one, or lead, out of the target or to other paths than were asked for (threats S3).
        Where all may be written and rsync is locked into the target, or all is new, there is none to look for.
        """
        if self.was_empty or (rsyncd.can_change_root() and not paths):
            return []
        root = os.fsencode(self.directory)
        found: list[bytes] = []
        waiting = list(paths or (b"",))
        while waiting:
            inside = waiting.pop()
            with suppress(OSError), os.scandir(root + b"/" + inside) as entries:
                for entry in entries:
                    path = inside + b"/" + entry.name if inside else entry.name
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(path)
                    elif entry.is_symlink() and entry.is_dir():
                        found.append(path)
        return found

    def saw(self, path: bytes) -> None:
        """Take note of a restored path: an earlier run may have left something half written beside it."""
        if self.was_interrupted:
            self._partial.add(path.rpartition(b"/")[0])

    def finish(self, *, is_whole: bool) -> None:
        """Set the times of what ``prepare`` made, and remove what is of no use any more."""
        for path, parent in reversed(self._made):
            with suppress(OSError):
                descriptor = self._open(path)
                try:
                    os.fchmod(descriptor, stat.S_IMODE(parent.mode))
                    os.utime(descriptor, ns=(parent.mtime_ns, parent.mtime_ns))
                finally:
                    os.close(descriptor)
        if not is_whole:
            return
        root = os.fsencode(self.directory)
        for inside in self._partial:
            left = root + b"/" + (inside + b"/" if inside else b"") + PARTIAL_DIRECTORY.encode()
            with suppress(OSError), _times_kept(left.rpartition(b"/")[0]):
                shutil.rmtree(left)
        with suppress(OSError), _times_kept(root):
            shutil.rmtree(self.directory / TEMPORARY_DIRECTORY)

    def _make_parents(self, paths: Sequence[bytes], told: Iterable[ParentDirectory]) -> None:
        known: dict[bytes, ParentDirectory] = {}
        for parent in told:
            with suppress(PolicyError):
                known[names.path_inside(path_bytes(parent.path))] = parent
        needed: dict[bytes, None] = {}
        for path in paths:
            parts = path.split(b"/")
            needed |= {b"/".join(parts[:length]): None for length in range(1, len(parts))}
        for path in needed:
            above, _slash, name = path.rpartition(b"/")
            descriptor = self._open(above)
            try:
                self._make(descriptor, name, path, known.get(path))
            finally:
                os.close(descriptor)

    def _make(self, directory: int, name: bytes, path: bytes, parent: ParentDirectory | None) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=directory)
        except FileExistsError:
            return
        if parent is None:
            return
        self._made.append((path, parent))
        if os.geteuid() == 0:
            os.chown(name, parent.uid, parent.gid, dir_fd=directory, follow_symlinks=False)

    def _open(self, path: bytes) -> int:
        """The directory at the path. Raises RestoreFailed where something else is there."""
        root = os.open(self.directory, _OPEN)
        try:
            return open_directory(root, path)
        except NotADirectoryError:
            raise RestoreFailed(
                f"{one_line(path)} is no directory in {self.directory}, or a symbolic link to one",
                hint="--to names another directory",
            ) from None
        finally:
            os.close(root)


def open_directory(root: int, path: bytes) -> int:
    """A descriptor of the directory at the path below the directory ``root``, no link followed on the way."""
    descriptor = os.dup(root)
    for part in path.split(b"/") if path else ():
        try:
            inner = os.open(part, _OPEN, dir_fd=descriptor)
        finally:
            os.close(descriptor)
        descriptor = inner
    return descriptor


@contextmanager
def held(directory: Path) -> Iterator[Target]:
    """The target, which no other restore writes into for the length of the block; the directory is made (0700) where
    it is missing. Raises RestoreFailed, LockHeld."""
    if not directory.is_absolute() or directory.is_symlink():
        raise RestoreFailed(f"{directory} is a symbolic link", hint="name the directory that it leads to")
    target = Target(directory)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with lock.exclusive_directory(directory):
            yield target
    except LockHeld:
        raise LockHeld(f"another restore into {directory} is running", hint="wait for it to end") from None
    except OSError as error:
        if error.filename != str(directory):
            raise
        raise RestoreFailed(f"cannot restore into {directory}: {error.strerror}") from error


@contextmanager
def _times_kept(directory: bytes) -> Iterator[None]:
    """What is removed from a directory in the block does not count as a change of it."""
    status = os.lstat(directory)
    yield
    os.utime(directory, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)
