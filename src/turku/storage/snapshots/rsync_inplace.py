"""Making a working tree fit for ``rsync --inplace``, which writes into the files that are there.

Where two names share a file, and the machine no longer has them so, rsync would write through the one into the other.
And where a file is to change by blocks, the blocks that rsync compares should be as small as those of the disk. It must
not be asked for holes there: it digs one for each few zeros, into blocks that did not change as well.
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
"""rsync takes no larger ones."""
LARGE_FILE_BYTES = 256 * 1024
"""Below it nobody minds that a changed file shares nothing."""
_LARGE_FILES_LIMIT = 100_000
"""Of so many the paths are kept in memory."""
_BLOCKS_LIMIT = 1 << 20
"""rsync holds 40 bytes of memory per block of a file, on the machine."""


def block_bytes(largest_file_bytes: int) -> int:
    """The size of the blocks for files that large: a power of two."""
    size = SMALLEST_BLOCK_BYTES
    while size < LARGEST_BLOCK_BYTES and largest_file_bytes > size * _BLOCKS_LIMIT:
        size *= 2
    return size


def prepare(directory: Path) -> int:
    """Return the size of the largest file in the tree, in bytes; after it, no two names in it share a file."""
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
    """Return those paths, relative to the directory, at which a large file is."""
    found: list[bytes] = []
    with DirectoryTree(directory) as tree:
        for path in paths:
            try:
                status = tree.status(path)
            except OSError:
                # New, or of another kind by now.
                continue
            if stat.S_ISREG(status.st_mode) and status.st_size >= LARGE_FILE_BYTES:
                found.append(path)
                if len(found) == _LARGE_FILES_LIMIT:
                    break
    return found


def punch_holes(directory: Path, paths: Iterable[bytes]) -> None:
    """Make holes of the zeros that were written into the files; times stay. What cannot be is left as it is."""
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
    # rsync removes one that is left over: the machine has no such file.
    temporary = b".turku-own-" + secrets.token_hex(6).encode()
    try:
        clone.clone_within(directory, name, temporary)
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except OSError:
        # What cannot be cloned is transferred again.
        with suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=directory)
        os.unlink(name, dir_fd=directory)
