"""Ranges of a file that take no space: where they are, and copies that have them too."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

_CHUNK_BYTES = 1024 * 1024


def data_spans(descriptor: int) -> Iterator[tuple[int, int]]:
    """Yield where what is no hole begins and ends, in order. Raises OSError.

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
            # Nothing but a hole comes after.
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
