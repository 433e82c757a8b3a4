"""Making a working tree fit for ``rsync --inplace``, which writes into the files that are there.

Where two names share a file, and the machine no longer has them so, rsync would write through the one into the other.
And where a file is to change by blocks, the blocks that rsync compares should be as small as those of the disk.
"""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from turku.storage.snapshots import clone, tree_removal

SMALLEST_BLOCK_BYTES = 4096
LARGEST_BLOCK_BYTES = 131072
"""rsync takes no larger ones."""
_BLOCKS_LIMIT = 1 << 20
"""rsync holds 40 bytes of memory per block of a file, on the machine."""


def block_bytes(largest_file_bytes: int) -> int:
    """The size of the blocks for files that large: a power of two."""
    size = SMALLEST_BLOCK_BYTES
    while size < LARGEST_BLOCK_BYTES and largest_file_bytes > size * _BLOCKS_LIMIT:
        size *= 2
    return size


def prepare(tree: Path) -> int:
    """The size of the largest file in the tree; after it, no two names in the tree share a file."""
    largest = 0
    root = tree_removal.open_directory(tree)
    try:
        waiting = [b"."]
        while waiting:
            path = waiting.pop()
            directory = tree_removal.open_directory(path, parent=root)
            try:
                inner, shared, size = _look(directory)
                waiting += [path + b"/" + name for name in inner]
                for name in shared:
                    _let_be_its_own(directory, name)
            finally:
                os.close(directory)
            largest = max(largest, size)
    finally:
        os.close(root)
    return largest


def _look(directory: int) -> tuple[list[bytes], list[bytes], int]:
    """Directories in it, files with more than one name, and the largest file's size."""
    inner: list[bytes] = []
    shared: list[bytes] = []
    largest = 0
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                inner.append(os.fsencode(entry.name))
            elif entry.is_file(follow_symlinks=False):
                status = entry.stat(follow_symlinks=False)
                largest = max(largest, status.st_size)
                if status.st_nlink > 1:
                    shared.append(os.fsencode(entry.name))
    return inner, shared, largest


def _let_be_its_own(directory: int, name: bytes) -> None:
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
