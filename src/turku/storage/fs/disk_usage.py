"""The disk space of a tree: what its files share counts once, on file systems whose files share blocks, too.

Asked of the kernel file by file (FIEMAP). Space that a file outside the tree shares counts too, and what the file
system compressed counts as it was before: rather too much than too little.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from turku.core.filesystem import holes
from turku.core.filesystem.directory_tree import DirectoryTree, WalkEntry, open_file_in
from turku.storage.fs import clone

_FIEMAP = 0xC020660B
_HEADER = struct.Struct("=QQIIII")
_EXTENT = struct.Struct("=QQQ16xI12x")
_EXTENTS_AT_ONCE = 256
_END = 2**64 - 1
_LAST, _NOT_ON_DISK, _SHARED = 0x1, 0x2 | 0x200, 0x2000
BLOCK_BYTES = 512
_SPANS_LIMIT = 100_000
_MINIMUM_CHECKED_BYTES = 1024 * 1024
"""Smaller files count whole: their holes are no matter."""


class BlockExtent(NamedTuple):
    """A part of a file that lies in one piece."""

    offset: int
    """Where it begins in the file, in bytes."""
    begin: int
    """Where it begins on the disk."""
    end: int
    is_shared: bool
    """True where another file may have it too."""


def measured_bytes(directory: Path) -> int:
    """Return the disk space of the tree, in bytes; what its files share counts once.

    Hard links are taken to be all in it, and what cannot be read to share nothing.
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
    """Return how many bytes copies of the files take: holes take nothing, and a file with several names counts once.

    ``files`` are paths in the tree, with the sizes that count for what is small or cannot be looked at.
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
    """Return how many bytes of the file lie in no hole. Raises OSError for what is no regular file."""
    descriptor = tree.open_file(path)
    try:
        total = 0
        for number, (begin, end) in enumerate(holes.data_spans(descriptor)):
            if number == _SPANS_LIMIT:
                # Whoever made the file chose how many they are: the rest counts whole.
                return total + os.fstat(descriptor).st_size - begin
            total += end - begin
        return total
    finally:
        os.close(descriptor)


def extent_signature(descriptor: int) -> tuple[tuple[int, int], ...] | None:
    """Where on the disk the open file's blocks lie; None where they have no place of their own yet, or nobody tells.

    Two files with the same one are the same blocks: what is read of the one was read of the other.
    """
    try:
        extents = list(_extents_of(descriptor))
    except OSError:
        return None
    if not extents or not all(extent.is_shared for extent in extents):
        return None
    return tuple((extent.begin, extent.end) for extent in extents)


def unshared_spans(descriptor: int) -> Iterator[tuple[int, int]]:
    """Yield where in the open file parts begin and end that no other file shares. Raises OSError where nobody tells."""
    for extent in _extents_of(descriptor):
        if not extent.is_shared:
            yield extent.offset, extent.offset + extent.end - extent.begin


class _ExtentUnion:
    """The length of what spans cover together, in memory that what they cover takes, not their number."""

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
    """Yield where the file's blocks lie; nothing where it cannot be read, or nobody tells."""
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
            # What is kept beside the inode, or not written yet, has no place that others could share.
            is_shared = bool(flags & _SHARED) and not flags & _NOT_ON_DISK
            yield BlockExtent(logical, physical, physical + length, is_shared)
        if flags & _LAST:
            return
