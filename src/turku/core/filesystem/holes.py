"""Holes of sparse files: finding them, copying them, and making them from zeros."""

import ctypes
import errno
import os
import stat
from collections.abc import Iterable, Iterator

_CHUNK_BYTES = 1024 * 1024
_BLOCK_BYTES = 512
LEAST_BYTES = 4096
"""Smallest file that can have a hole. A smaller file may lie in its inode."""
_HOLE_BYTES = 64 * 1024
"""Shortest hole that is made. A file in many pieces is read slowly."""
# <linux/falloc.h>
_KEEP_SIZE, _PUNCH_HOLE = 0x1, 0x2


def has_holes(status: os.stat_result) -> bool:
    """Return True for a regular file that takes less space than its size and is not too small for a hole."""
    takes_less = status.st_blocks * _BLOCK_BYTES < status.st_size >= LEAST_BYTES
    return takes_less and stat.S_ISREG(status.st_mode)


def data_spans(descriptor: int) -> Iterator[tuple[int, int]]:
    """Yield the begin and end of each range that is not a hole, in order. Raises OSError.

    A file system without holes has one span, which is the whole file.
    """
    size_bytes = os.fstat(descriptor).st_size
    end = 0
    while end < size_bytes:
        try:
            begin = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            # Only a hole follows.
            return
        end = os.lseek(descriptor, begin, os.SEEK_HOLE)
        yield begin, end


def copy_content(source: int, target: int) -> None:
    """Give the open empty file ``target`` the content of ``source``, with its holes. Raises OSError."""
    os.ftruncate(target, os.fstat(source).st_size)
    for begin, end in data_spans(source):
        position = begin
        while position < end and (chunk := os.pread(source, min(_CHUNK_BYTES, end - position), position)):
            view = memoryview(chunk)
            while view:
                written = os.pwrite(target, view, position)
                view, position = view[written:], position + written


def punch_zeros(descriptor: int, spans: Iterable[tuple[int, int]]) -> int:
    """Make holes of the zeros in these spans of the open file, and return their size in bytes.

    The content stays, the modification time does not. Raises OSError (EOPNOTSUPP on a file system without holes).
    """
    dug_bytes, zeros = 0, bytes(_HOLE_BYTES)
    for begin, end in spans:
        first = -(-begin // _HOLE_BYTES) * _HOLE_BYTES
        for offset in range(first, end - _HOLE_BYTES + 1, _HOLE_BYTES):
            if os.pread(descriptor, _HOLE_BYTES, offset) == zeros:
                _punch(descriptor, offset, _HOLE_BYTES)
                dug_bytes += _HOLE_BYTES
    return dug_bytes


def punch_all_zeros(descriptor: int) -> None:
    """Make holes of all zeros in the open file, as small as the file system has them. Its times stay.

    Raises OSError (EOPNOTSUPP on a file system without holes).
    """
    status = os.fstat(descriptor)
    zeros, begun = bytes(LEAST_BYTES), -1
    for offset in range(0, status.st_size, LEAST_BYTES):
        # The last one may be shorter.
        is_hole = zeros.startswith(os.pread(descriptor, LEAST_BYTES, offset))
        if is_hole and begun < 0:
            begun = offset
        elif not is_hole and begun >= 0:
            _punch(descriptor, begun, offset - begun)
            begun = -1
    if begun >= 0:
        _punch(descriptor, begun, -(-status.st_size // LEAST_BYTES) * LEAST_BYTES - begun)
    os.utime(descriptor, ns=(status.st_atime_ns, status.st_mtime_ns))


def _punch(descriptor: int, offset: int, length: int) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    mode = ctypes.c_int(_PUNCH_HOLE | _KEEP_SIZE)
    if library.fallocate64(descriptor, mode, ctypes.c_int64(offset), ctypes.c_int64(length)):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
