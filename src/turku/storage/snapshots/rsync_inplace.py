"""Preparation of a tree for ``rsync --inplace``, which writes to the existing files.

If two names share a file and the machine no longer has them as one, rsync would write through one name to the other.
Blocks of a changed file should be compared in the block size of the disk. rsync must not make holes in existing files,
because it makes one for each few zeros, in unchanged blocks as well.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from turku.core.filesystem import holes
from turku.core.filesystem.directory_tree import READ_FLAGS, DirectoryTree
from turku.storage.fs import clone, disk_usage

SMALLEST_BLOCK_BYTES = 4096
LARGEST_BLOCK_BYTES = 131072
"""The largest block size of rsync."""
LARGE_FILE_BYTES = 256 * 1024
"""Smaller files need not share blocks when they change."""
_LARGE_FILES_LIMIT = 100_000
"""The number of paths that are kept in memory."""
_BLOCKS_LIMIT = 1 << 20
"""rsync holds 40 bytes of memory per block of a file, on the machine."""


def block_bytes(largest_file_bytes: int) -> int:
    """Return the block size for files up to this size, a power of two."""
    size = SMALLEST_BLOCK_BYTES
    while size < LARGEST_BLOCK_BYTES and largest_file_bytes > size * _BLOCKS_LIMIT:
        size *= 2
    return size


def prepare(directory: Path) -> int:
    """Give each name in the tree a file of its own, and return the size of the largest file in bytes."""
    largest = 0
    shared: list[tuple[bytes, bytes]] = []
    with DirectoryTree(directory) as opened:
        for each in opened.walk():
            if each.is_file:
                largest = max(largest, each.status.st_size)
                if each.status.st_nlink > 1:
                    shared.append((each.path, each.name))
        for path, name in shared:
            _unshare(opened.directory(path), name)
    return largest


def large_files(directory: Path, paths: Iterable[bytes]) -> list[bytes]:
    """Return the paths, relative to the directory, that are large files."""
    found: list[bytes] = []
    with DirectoryTree(directory) as tree:
        for path in paths:
            try:
                status = tree.status(path)
            except OSError:
                # The entry is new, or changed its kind.
                continue
            if stat.S_ISREG(status.st_mode) and status.st_size >= LARGE_FILE_BYTES:
                found.append(path)
                if len(found) == _LARGE_FILES_LIMIT:
                    break
    return found


def punch_holes(directory: Path, paths: Iterable[bytes]) -> None:
    """Make holes in place of zeros in these files, and keep their times. Failures leave a file as it is."""
    with DirectoryTree(directory) as tree:
        for path in paths:
            with suppress(OSError):
                descriptor = tree.open_file(path, READ_FLAGS | os.O_RDWR)
                try:
                    status = os.fstat(descriptor)
                    if holes.punch_zeros(descriptor, disk_usage.unshared_spans(descriptor)):
                        os.utime(descriptor, ns=(status.st_atime_ns, status.st_mtime_ns))
                finally:
                    os.close(descriptor)


def _unshare(directory: int, name: bytes) -> None:
    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if status.st_nlink == 1 or not stat.S_ISREG(status.st_mode):
        return
    # rsync removes a leftover of this name, because the machine has no such file.
    temporary = b".turku-own-" + secrets.token_hex(6).encode()
    try:
        clone.clone_within(directory, name, temporary)
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except OSError:
        # A file that cannot be cloned is transferred again.
        with suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=directory)
        os.unlink(name, dir_fd=directory)
