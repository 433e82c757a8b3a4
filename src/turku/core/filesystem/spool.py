"""Collections of bytes with bounded memory, for trees whose size an untrusted side decides."""

import os
import struct
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Self

import xxhash

_MEMORY_BYTES = 4 * 1024 * 1024
_ITEM_BYTES = 64
"""Memory that Python needs for each item beside its content."""
_LENGTH = struct.Struct("=I")


class Stack:
    """A stack. Items that do not fit into memory lie in a file without a name. A context manager."""

    def __init__(self, directory: Path | None = None, *, memory_bytes: int = _MEMORY_BYTES) -> None:
        self._directory = directory
        self._memory_bytes = memory_bytes
        self._items: list[bytes] = []
        self._size_bytes = 0
        self._file: IO[bytes] | None = None
        self._chunks: list[int] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._file is not None:
            self._file.close()

    def push(self, item: bytes) -> None:
        """Put an item on top."""
        self._items.append(item)
        self._size_bytes += len(item) + _ITEM_BYTES
        if self._size_bytes > self._memory_bytes:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._directory)  # noqa: SIM115  (closed with this)
            self._chunks.append(self._file.seek(0, os.SEEK_END))
            self._file.write(b"".join(_LENGTH.pack(len(each)) + each for each in self._items))
            self._items, self._size_bytes = [], 0

    def push_all(self, items: Iterable[bytes]) -> None:
        """Put the items on top, the last of them uppermost."""
        for item in items:
            self.push(item)

    def pop(self) -> bytes | None:
        """Remove and return the item on top, or None if there is none."""
        if not self._items and self._chunks and self._file is not None:
            start = self._chunks.pop()
            self._file.seek(start)
            self._items = list(_items(self._file))
            self._size_bytes = sum(len(item) + _ITEM_BYTES for item in self._items)
            self._file.truncate(start)
        if not self._items:
            return None
        item = self._items.pop()
        self._size_bytes -= len(item) + _ITEM_BYTES
        return item


class Spool:
    """A queue in a file without a name: items are read in the order in which they were added. A context manager."""

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory
        self._file: IO[bytes] | None = None
        self.size_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def add(self, item: bytes) -> None:
        """Add an item. Not allowed after reading has begun."""
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self._directory)  # noqa: SIM115  (closed with this)
        self._file.write(_LENGTH.pack(len(item)) + item)
        self.size_bytes += _LENGTH.size + len(item)

    def __iter__(self) -> Iterator[bytes]:
        if self._file is not None:
            self._file.seek(0)
            yield from _items(self._file)


def _items(stream: IO[bytes]) -> Iterator[bytes]:
    while header := stream.read(_LENGTH.size):
        yield stream.read(_LENGTH.unpack(header)[0])


class BloomFilter:
    """A Bloom filter: a set of names of fixed size that may report a name that was not added, and never misses one.

    A false positive happens for about one name in a million after a million names were added. The hash has a random
    seed, so that nobody who chooses names can cause false positives.
    """

    _SHIFTS = (0, 27, 54, 81)
    _BITS = 27

    def __init__(self) -> None:
        self._seed = int.from_bytes(os.urandom(8), "big")
        self._field = bytearray(2**self._BITS // 8)

    def add(self, name: bytes) -> None:
        """Add a name."""
        for position in self._positions(name):
            self._field[position >> 3] |= 1 << (position & 7)

    def __contains__(self, name: bytes) -> bool:
        return all(self._field[position >> 3] & (1 << (position & 7)) for position in self._positions(name))

    def _positions(self, name: bytes) -> Iterator[int]:
        digest = xxhash.xxh3_128_intdigest(name, self._seed)
        return ((digest >> shift) & (2**self._BITS - 1) for shift in self._SHIFTS)
