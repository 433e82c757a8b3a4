"""Healing a stored file: good content from another copy takes the damaged one's place under each of its names.

A new file is made beside the snapshots, read again from the disk, and renamed over each name: killed at any step, a
name has the damaged file or the good one. In a sealed subvolume nothing can be renamed in from outside; it is opened
for writing for the moment, and the file is written over: no other snapshot has it, and killed half way, it is damaged
as before.
"""

from __future__ import annotations

import errno
import logging
import os
import secrets
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from turku.core import durable
from turku.errors import TurkuError
from turku.storage.beneath import Tree, open_directory
from turku.storage.snapshots import subvolume
from turku.storage.snapshots.place import SourcePlace
from turku.storage.stored_content import CHUNK_BYTES, Pace, checksum

_LOG = logging.getLogger(__name__)
_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class NotHealed(TurkuError):
    """A damaged file could not be replaced; the message says why. It never ends a program."""


@dataclass(frozen=True)
class StoredName:
    """A name of a stored file: in which tree, by which path."""

    tree: Path
    path: bytes


def healing_directory(place: SourcePlace) -> Path:
    """Where new files are made; what a killed run left there is the next one's to remove."""
    return place.snapshots_dir / ".healing"


def heal(
    place: SourcePlace,
    damaged: Sequence[StoredName],
    *,
    donor: StoredName,
    expected: bytes,
    mtime_ns: int,
    is_missing: bool = False,
) -> tuple[StoredName, ...]:
    """The names that have the donor's content now: those whose file could be replaced.

    ``damaged`` are names of one file (hard links), or of several alike; ``expected`` is the checksum that the donor's
    content must have, ``mtime_ns`` the time of the file. Owner, mode and attributes are the damaged file's own; of one
    that ``is_missing``, the donor's. The source's lock must be held. Raises NotHealed when the donor is damaged too, or
    there is no room.
    """
    healed: list[StoredName] = []
    apart = [name for name in damaged if subvolume.is_subvolume(name.tree)]
    linked = [name for name in damaged if name not in apart]
    try:
        if linked:
            pattern = donor if is_missing else linked[0]
            with _good_file(place, pattern, donor, expected, mtime_ns) as new:
                healed += [name for name in linked if _attempt(_take_place, new, name)]
        healed += [name for name in apart if _attempt(_write_over, name, donor, expected, mtime_ns)]
    except OSError as error:
        raise NotHealed(f"{os.fsdecode(donor.path)}: {error.strerror or error}") from error
    return tuple(healed)


def set_aside(place: SourcePlace, name: StoredName) -> None:
    """Take a file that cannot be read out of a snapshot, and keep it beside the snapshots under a hidden name.

    The next backup is built upon the snapshot: what it cannot read would make each one fail. Raises OSError.
    """
    snapshots = open_directory(place.snapshots_dir)
    try:
        with _writable(name.tree), Tree(name.tree) as tree:
            directory, entry = tree.directory_of(name.path)
            with _changing(directory):
                try:
                    os.rename(entry, f".damaged-{secrets.token_hex(8)}", src_dir_fd=directory, dst_dir_fd=snapshots)
                except OSError as error:
                    # A subvolume is a file system of its own.
                    if error.errno != errno.EXDEV:
                        raise
                    os.unlink(entry, dir_fd=directory)
            os.fsync(directory)
    finally:
        os.close(snapshots)


NEVER_NS = 1
"""A time that no machine's file has: a nanosecond after the beginning of 1970."""


def set_time(name: StoredName, mtime_ns: int) -> None:
    """Give a damaged file a time: ``NEVER_NS``, so that the next backup brings it anew, or its own again.

    All its hard links have that time then; what they hold is not what was written in any case. Raises OSError.
    """
    with _writable(name.tree), Tree(name.tree) as tree:
        descriptor = tree.open_file(name.path)
        try:
            os.utime(descriptor, ns=(os.fstat(descriptor).st_atime_ns, mtime_ns))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sweep(place: SourcePlace) -> None:
    """Remove what a killed run left, and seal subvolumes that it had opened."""
    with suppress(FileNotFoundError, NotADirectoryError):
        directory = open_directory(healing_directory(place))
        try:
            with os.scandir(directory) as entries:
                for entry in entries:
                    os.unlink(entry.name, dir_fd=directory)
        finally:
            os.close(directory)
        healing_directory(place).rmdir()
    with suppress(FileNotFoundError):
        opened = durable.read_regular_file(_opened_mark(place.snapshots_dir), limit_bytes=4096).decode()
        tree = place.snapshots_dir / opened
        if "/" not in opened and subvolume.is_subvolume(tree):
            subvolume.set_read_only(tree, read_only=True)
        _opened_mark(place.snapshots_dir).unlink()


def _attempt(step: Callable[..., None], *arguments: Any) -> bool:
    [name] = [argument for argument in arguments if isinstance(argument, StoredName)][:1]
    try:
        step(*arguments)
    except OSError as error:
        _LOG.warning("%s/%s: cannot be healed: %s", name.tree.name, os.fsdecode(name.path), error.strerror or error)
        return False
    return True


@dataclass(frozen=True)
class _NewFile:
    """A good file beside the snapshots: in which open directory, under which name."""

    directory: int
    name: str


@contextmanager
def _good_file(
    place: SourcePlace, pattern: StoredName, donor: StoredName, expected: bytes, mtime_ns: int
) -> Iterator[_NewFile]:
    """A new file beside the snapshots with the donor's content, checked, as ``pattern`` in all else; gone with the
    block."""
    with _new_directory(place) as directory:
        new = _NewFile(directory, secrets.token_hex(8))
        target = os.open(new.name, _CREATE_FLAGS, 0o600, dir_fd=directory)
        try:
            with _opened(donor) as source, _opened(pattern) as like:
                _copy(source, target)
                _copy_attributes(like, target)
                os.utime(target, ns=(mtime_ns, mtime_ns))
            os.fsync(target)
            if checksum(target, Pace()) != expected:
                raise NotHealed(f"{os.fsdecode(donor.path)}: the other copy is damaged too")
            yield new
        finally:
            os.close(target)
            os.unlink(new.name, dir_fd=directory)


@contextmanager
def _new_directory(place: SourcePlace) -> Iterator[int]:
    """The directory for new files, open; it is removed after the block where nothing is left in it."""
    name = healing_directory(place).name
    snapshots = open_directory(place.snapshots_dir)
    try:
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=snapshots)
        directory = os.open(name, _DIRECTORY_FLAGS, dir_fd=snapshots)
        try:
            yield directory
        finally:
            os.close(directory)
            with suppress(OSError):
                os.rmdir(name, dir_fd=snapshots)
    finally:
        os.close(snapshots)


def _take_place(new: _NewFile, name: StoredName) -> None:
    link = secrets.token_hex(8)
    os.link(new.name, link, src_dir_fd=new.directory, dst_dir_fd=new.directory, follow_symlinks=False)
    try:
        with Tree(name.tree) as tree:
            directory, entry = tree.directory_of(name.path)
            with _changing(directory):
                os.rename(link, entry, src_dir_fd=new.directory, dst_dir_fd=directory)
            os.fsync(directory)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(link, dir_fd=new.directory)
        raise


def _write_over(name: StoredName, donor: StoredName, expected: bytes, mtime_ns: int) -> None:
    with _opened(donor) as source:
        if checksum(source, Pace()) != expected:
            raise NotHealed(f"{os.fsdecode(donor.path)}: the other copy is damaged too")
    with _writable(name.tree), Tree(name.tree) as tree, _opened(donor) as source:
        os.close(tree.open_file(name.path))
        directory, entry = tree.directory_of(name.path)
        target = os.open(entry, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
        try:
            _copy(source, target)
            os.ftruncate(target, os.fstat(source).st_size)
            os.utime(target, ns=(mtime_ns, mtime_ns))
            os.fsync(target)
        finally:
            os.close(target)


@contextmanager
def _opened(name: StoredName) -> Iterator[int]:
    with Tree(name.tree) as tree:
        descriptor = tree.open_file(name.path)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


@contextmanager
def _changing(directory: int) -> Iterator[None]:
    """Leave to change a stored directory, whose mode and times stay what they are."""
    status = os.fstat(directory)
    mode = stat.S_IMODE(status.st_mode)
    is_opened = os.geteuid() != 0 and not mode & stat.S_IWUSR
    if is_opened:
        os.fchmod(directory, mode | stat.S_IRWXU)
    try:
        yield
    finally:
        if is_opened:
            os.fchmod(directory, mode)
        os.utime(directory, ns=(status.st_atime_ns, status.st_mtime_ns))


@contextmanager
def _writable(tree: Path) -> Iterator[None]:
    """A sealed subvolume, open for the moment; ``sweep`` seals one that a killed run left open."""
    if not subvolume.is_subvolume(tree):
        yield
        return
    mark = _opened_mark(tree.parent)
    durable.write_text(mark, tree.name)
    subvolume.set_read_only(tree, read_only=False)
    try:
        yield
    finally:
        subvolume.set_read_only(tree, read_only=True)
        mark.unlink(missing_ok=True)


def _opened_mark(snapshots_dir: Path) -> Path:
    return snapshots_dir / ".healing-subvolume"


def _copy(source: int, target: int) -> None:
    offset = 0
    while chunk := os.pread(source, CHUNK_BYTES, offset):
        view = memoryview(chunk)
        while view:
            written = os.pwrite(target, view, offset)
            view, offset = view[written:], offset + written


def _copy_attributes(pattern: int, target: int) -> None:
    status = os.fstat(pattern)
    if os.geteuid() == 0:
        os.fchown(target, status.st_uid, status.st_gid)
    for name in os.listxattr(pattern):
        if name.startswith("user."):
            os.setxattr(target, name, os.getxattr(pattern, name))
    os.fchmod(target, stat.S_IMODE(status.st_mode))
