"""The disk space of a tree. Blocks that its files share count once, also on file systems with shared blocks.

The kernel is asked file by file (FIEMAP). Space that is shared with a file outside the tree counts as well, and
compressed data counts uncompressed: the result is rather too much than too little.
"""

import fcntl
import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from turku.core.filesystem import holes, openat2
from turku.core.filesystem.directory_tree import DirectoryTree, WalkEntry, open_file_in
from turku.storage.fs import clone
from turku.storage.fs import tree as fs

_FIEMAP = 0xC020660B
_HEADER = struct.Struct("=QQIIII")
_EXTENT = struct.Struct("=QQQ16xI12x")
_EXTENTS_AT_ONCE = 256
_END = 2**64 - 1
_LAST, _NOT_ON_DISK, _SHARED = 0x1, 0x2 | 0x200, 0x2000
BLOCK_BYTES = 512
_SPANS_LIMIT = 100_000
_MINIMUM_CHECKED_BYTES = 1024 * 1024
"""The size below which a file counts whole, as its holes do not matter."""


@dataclass(frozen=True)
class VolumeSpace:
    """The space of a file system at one moment."""

    device: int
    total_bytes: int
    available_bytes: int
    """The space that this process's user may still fill."""
    used_percent: float
    """The percentage that df shows: of what users may fill, without root's reserve."""
    inodes_used_percent: float = 0.0
    """The same percentage of inodes, which a tree of small files uses up first. 0 where inodes are not counted."""
    free_inodes: int | None = None
    """None where inodes are not counted."""

    @property
    def fullness_percent(self) -> float:
        """The percentage used of space or of inodes, whichever is scarcer."""
        return max(self.used_percent, self.inodes_used_percent)

    @property
    def free_percent(self) -> float:
        """The free percentage of space or of inodes, whichever is scarcer."""
        return 100 - self.fullness_percent


def volume_space(path: Path) -> VolumeSpace:
    """Return the space of the file system that holds the directory. Raises OSError."""
    with fs.opened(path, openat2.HANDLE) as directory:
        device = os.fstat(directory).st_dev
        status = os.fstatvfs(directory)
    used, inodes_used = status.f_blocks - status.f_bfree, status.f_files - status.f_ffree
    return VolumeSpace(
        device=device,
        total_bytes=status.f_blocks * status.f_frsize,
        available_bytes=status.f_bavail * status.f_frsize,
        used_percent=_percent(used, used + status.f_bavail, otherwise=100.0),
        inodes_used_percent=_percent(inodes_used, inodes_used + status.f_favail, otherwise=0.0),
        free_inodes=status.f_favail if status.f_files else None,
    )


def _percent(used: int, fillable: int, *, otherwise: float) -> float:
    return 100 * used / fillable if fillable else otherwise


class BlockExtent(NamedTuple):
    """A contiguous part of a file."""

    offset: int
    """Its start in the file, in bytes."""
    begin: int
    """Its start on the disk, in bytes."""
    end: int
    is_shared: bool
    """True if another file may share it."""


def measured_bytes(directory: Path) -> int:
    """Return the disk space of the tree, in bytes. What its files share counts once.

    All hard links of a file are assumed to be in the tree. A file that cannot be read is assumed to share nothing.
    """
    shares_blocks = clone.may_share_blocks(directory)
    total = 0.0
    shared = _ExtentUnion()
    with DirectoryTree(directory) as opened:
        for each in opened.walk():
            status = each.status
            if not each.is_file or not status.st_blocks:
                total += status.st_blocks * BLOCK_BYTES / (1 if each.is_directory else status.st_nlink)
                continue
            extents = list(_extents(each)) if shares_blocks else []
            if not extents:
                total += status.st_blocks * BLOCK_BYTES / status.st_nlink
            for extent in extents:
                if extent.is_shared:
                    shared.add(extent.begin, extent.end)
                else:
                    total += (extent.end - extent.begin) / status.st_nlink
    return round(total) + shared.length


def copy_bytes(tree: DirectoryTree, files: Iterable[tuple[bytes, int]]) -> int:
    """Return the disk space that copies of the files take, in bytes.

    Holes take nothing, and a file with several names counts once. ``files`` are paths in the tree with their sizes,
    which count for small files and for files that cannot be read.
    """
    total = 0
    copied: set[tuple[int, int]] = set()
    for path, recorded_bytes in files:
        size_bytes = recorded_bytes
        if size_bytes >= _MINIMUM_CHECKED_BYTES:
            with suppress(OSError):
                status = tree.status(path)
                if (status.st_dev, status.st_ino) in copied:
                    continue
                if status.st_nlink > 1:
                    copied.add((status.st_dev, status.st_ino))
                if holes.has_holes(status):
                    size_bytes = min(size_bytes, _data_bytes(tree, path))
        total += size_bytes
    return total


def _data_bytes(tree: DirectoryTree, path: bytes) -> int:
    """Return the number of bytes of the file outside its holes. Raises OSError if it is not a regular file."""
    descriptor = tree.open_file(path)
    try:
        total = 0
        for number, (begin, end) in enumerate(holes.data_spans(descriptor)):
            if number == _SPANS_LIMIT:
                # The machine chose the number of holes, so the rest counts whole.
                return total + os.fstat(descriptor).st_size - begin
            total += end - begin
        return total
    finally:
        os.close(descriptor)


def extent_signature(descriptor: int) -> tuple[tuple[int, int], ...] | None:
    """Return the position of the open file's blocks on the disk, or None where it is not known.

    Two files with equal signatures are the same blocks, so reading one of them is enough.
    """
    try:
        extents = list(_extents_of(descriptor))
    except OSError:
        return None
    if not extents or not all(extent.is_shared for extent in extents):
        return None
    return tuple((extent.begin, extent.end) for extent in extents)


def unshared_spans(descriptor: int) -> Iterator[tuple[int, int]]:
    """Yield begin and end of the parts of the open file that no other file shares.

    Raises OSError where it is not known.
    """
    for extent in _extents_of(descriptor):
        if not extent.is_shared:
            yield extent.offset, extent.offset + extent.end - extent.begin


class _ExtentUnion:
    """The total length of a union of spans. Its memory grows with the union, not with the number of spans added."""

    def __init__(self) -> None:
        self._spans: list[tuple[int, int]] = []
        self._limit = _SPANS_LIMIT

    def add(self, begin: int, end: int) -> None:
        self._spans.append((begin, end))
        if len(self._spans) > self._limit:
            self._merge()
            self._limit = max(_SPANS_LIMIT, 2 * len(self._spans))

    @property
    def length(self) -> int:
        self._merge()
        return sum(end - begin for begin, end in self._spans)

    def _merge(self) -> None:
        merged: list[tuple[int, int]] = []
        for begin, end in sorted(self._spans):
            if merged and begin <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
            else:
                merged.append((begin, end))
        self._spans = merged


def _extents(each: WalkEntry) -> Iterator[BlockExtent]:
    """Yield the extents of the file, or none where it cannot be read or they are not known."""
    with suppress(OSError):
        descriptor = open_file_in(each.directory, each.name)
        try:
            yield from _extents_of(descriptor)
        finally:
            os.close(descriptor)


def _extents_of(descriptor: int) -> Iterator[BlockExtent]:
    start = 0
    while True:
        answer = bytearray(_HEADER.size + _EXTENTS_AT_ONCE * _EXTENT.size)
        _HEADER.pack_into(answer, 0, start, _END - start, 0, 0, _EXTENTS_AT_ONCE, 0)
        fcntl.ioctl(descriptor, _FIEMAP, answer, True)
        count = _HEADER.unpack_from(answer)[3]
        flags = _LAST
        for number in range(count):
            logical, physical, length, flags = _EXTENT.unpack_from(answer, _HEADER.size + number * _EXTENT.size)
            start = logical + length
            # Data inside the inode or not written yet has no place that others could share.
            is_shared = bool(flags & _SHARED) and not flags & _NOT_ON_DISK
            yield BlockExtent(logical, physical, physical + length, is_shared)
        if flags & _LAST:
            return
