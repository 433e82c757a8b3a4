"""Replacement of a damaged file by good content from another copy, under each of its names.

A new file is made beside the snapshots, read again from the disk, and renamed over each name. If the program is killed
at any step, a name has the damaged file or the good one. The damaged file itself is never changed, as other snapshots
may share it, and a name gets another file only if the catalog says that this content belongs there.

Nothing can be renamed into a sealed btrfs subvolume. It is made writable for a moment, and the file gets the blocks of
the new one, which was checked outside. No other snapshot has that file.
"""

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

from turku.core.filesystem import holes
from turku.core.filesystem.directory_tree import CREATE_FLAGS, DirectoryTree
from turku.core.filesystem.paths import split
from turku.errors import BackupFailed, DurableWriteFailed, TurkuError
from turku.storage.disk.source_directory import SourceDirectory
from turku.storage.fs import attributes, clone, subvolume
from turku.storage.fs import tree as fs
from turku.storage.fs.stored_content import RateLimiter, checksum

_LOG = logging.getLogger(__name__)


class NotRepaired(TurkuError):
    """A damaged file could not be replaced, for the reason in the message. It never ends a program."""


@dataclass(frozen=True)
class StoredName:
    """A name of a stored file: a tree, and a path in it."""

    tree: Path
    path: bytes


def repair_directory(place: SourceDirectory) -> Path:
    """Return the directory for new files. What a killed run left there is removed by the next one."""
    return place.snapshots_dir / ".repair"


def replace(
    place: SourceDirectory,
    damaged: Sequence[StoredName],
    *,
    donor: StoredName,
    expected: bytes,
    mtime_ns: int,
    is_missing: bool = False,
    takes_attributes: bool = False,
) -> tuple[StoredName, ...]:
    """Give the damaged names the donor's content, and return the names where that succeeded.

    ``damaged`` are names of one file (hard links), or of several equal files. ``expected`` is the checksum that the
    donor's content must have, and ``mtime_ns`` the time of the file. Owner, mode and attributes stay those of the
    damaged file. If it ``is_missing``, or with ``takes_attributes``, they are the donor's. The source's lock must be
    held.

    Raises NotRepaired if the donor is damaged too, or there is no room.
    """
    repaired: list[StoredName] = []
    sealed = [name for name in damaged if subvolume.is_subvolume(name.tree)]
    linked = [name for name in damaged if name not in sealed]
    try:
        if linked:
            pattern = donor if is_missing or takes_attributes else linked[0]
            with _good_file(place, pattern, donor, expected, mtime_ns) as new:
                repaired += [name for name in linked if _attempt(_take_place, new, name)]
        if takes_attributes:
            repaired += [name for name in sealed if _attempt(_take_attributes, name, donor)]
        else:
            repaired += [name for name in sealed if _attempt(_take_content, place, name, donor, expected, mtime_ns)]
    except (OSError, DurableWriteFailed, BackupFailed) as error:
        raise NotRepaired(f"{os.fsdecode(donor.path)}: {error}") from error
    return tuple(repaired)


def remove_leftovers(place: SourceDirectory) -> None:
    """Remove what a killed run left, and seal a subvolume that it had made writable."""
    directory = repair_directory(place)
    for name in fs.names(directory):
        fs.unlink(directory / name)
    if fs.is_directory(directory):
        fs.remove_directory(directory)
    mark = _unsealed_mark(place.snapshots_dir)
    with suppress(FileNotFoundError):
        opened = fs.read_file(mark, limit_bytes=4096).decode()
        tree = place.snapshots_dir / opened
        if "/" not in opened and subvolume.is_subvolume(tree):
            subvolume.set_read_only(tree, read_only=True)
        fs.unlink(mark)


def _attempt(step: Callable[..., None], *arguments: Any) -> bool:
    [name] = [argument for argument in arguments if isinstance(argument, StoredName)][:1]
    try:
        step(*arguments)
    except OSError as error:
        _LOG.warning("%s/%s: cannot be repaired: %s", name.tree.name, os.fsdecode(name.path), error.strerror or error)
        return False
    return True


@dataclass(frozen=True)
class _NewFile:
    """A good file beside the snapshots: its open directory, its name, and its descriptor."""

    directory: int
    name: str
    descriptor: int


@contextmanager
def _good_file(
    place: SourceDirectory, pattern: StoredName, donor: StoredName, expected: bytes, mtime_ns: int
) -> Iterator[_NewFile]:
    """Yield a new file with the donor's checked content and the attributes of ``pattern``.

    It is removed at the end of the block.
    """
    with _new_directory(place) as directory:
        name = secrets.token_hex(8)
        target = os.open(name, CREATE_FLAGS, 0o600, dir_fd=directory)
        try:
            with opened(donor) as source, opened(pattern) as like:
                holes.copy_content(source, target)
                attributes.copy(os.fstat(like), like, target)
                os.utime(target, ns=(mtime_ns, mtime_ns))
            os.fsync(target)
            if checksum(target, RateLimiter()) != expected:
                raise NotRepaired(f"{os.fsdecode(donor.path)}: the other copy is damaged too")
            yield _NewFile(directory, name, target)
        finally:
            os.close(target)
            os.unlink(name, dir_fd=directory)


@contextmanager
def _new_directory(place: SourceDirectory) -> Iterator[int]:
    """Open the directory for new files for the length of the block. It is then removed if it is empty."""
    path = repair_directory(place)
    fs.make_directory(path)
    with fs.opened(path) as directory:
        try:
            yield directory
        finally:
            with suppress(OSError):
                fs.remove_directory(path)


def _take_place(new: _NewFile, name: StoredName) -> None:
    link = secrets.token_hex(8)
    os.link(new.name, link, src_dir_fd=new.directory, dst_dir_fd=new.directory, follow_symlinks=False)
    try:
        with DirectoryTree(name.tree) as tree:
            parent, entry = split(name.path)
            directory = tree.directory(parent)
            with _changing(directory):
                os.rename(link, entry, src_dir_fd=new.directory, dst_dir_fd=directory)
            os.fsync(directory)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(link, dir_fd=new.directory)
        raise


def _take_content(place: SourceDirectory, name: StoredName, donor: StoredName, expected: bytes, mtime_ns: int) -> None:
    with _good_file(place, name, donor, expected, mtime_ns) as new, _unsealed(name, os.O_RDWR) as target:
        clone.take_content(new.descriptor, target)
        os.utime(target, ns=(mtime_ns, mtime_ns))


def _take_attributes(name: StoredName, donor: StoredName) -> None:
    with opened(donor) as source, _unsealed(name, os.O_RDONLY) as target:
        attributes.copy_extended(source, target)
        # Setting or removing an ACL changes the mode.
        os.fchmod(target, stat.S_IMODE(os.fstat(source).st_mode))


@contextmanager
def opened(name: StoredName) -> Iterator[int]:
    """Open the stored file for the length of the block, and yield its descriptor. Raises OSError."""
    with DirectoryTree(name.tree) as tree:
        descriptor = tree.open_file(name.path)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


@contextmanager
def _changing(directory: int) -> Iterator[None]:
    """Make a stored directory writable for the block. Its mode and times are restored."""
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
def _unsealed(name: StoredName, access: int) -> Iterator[int]:
    """Open the file for the length of the block, in which its subvolume is writable. Its changes are durable.

    ``remove_leftovers`` seals a subvolume that a killed run left open.
    """
    mark = _unsealed_mark(name.tree.parent)
    fs.write_bytes(mark, os.fsencode(name.tree.name))
    subvolume.set_read_only(name.tree, read_only=False)
    try:
        with DirectoryTree(name.tree) as tree:
            target = tree.open_file(name.path, access | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                if os.fstat(target).st_nlink > 1:
                    raise OSError(errno.EMLINK, "has further names, which would change with it", os.fsdecode(name.path))
                yield target
                os.fsync(target)
            finally:
                os.close(target)
    finally:
        subvolume.set_read_only(name.tree, read_only=True)
        fs.unlink(mark)


def _unsealed_mark(snapshots_dir: Path) -> Path:
    return snapshots_dir / ".repair-subvolume"
