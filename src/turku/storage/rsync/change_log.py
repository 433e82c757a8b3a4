"""What a run changed against the snapshot that it was built upon, by what rsync says of each entry.

rsync prints a line for each entry that it made, changed or deleted. The lines of 1,000,000 files are kept in a file
without a name, not in memory. A machine's daemon can have lines printed too: those of a backup therefore begin with a
mark that it does not know (``new_mark``), and paths are checked as everything from the network is.
"""

from __future__ import annotations

import os
import re
import secrets
import struct
import tempfile
import threading
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import msgspec

from turku.core.paths import is_entry_path
from turku.storage.fs import tree as fs

MARKER = b":"
"""With this begins each line of ``OUT_FORMAT``, and no line of rsync's own."""
_FORMAT, _TARGET_FORMAT = "%i|%C|%n", "%i|%C|%L|%n"
_LINKED_TO, _POINTS_TO = b" => ", b" -> "
_UNKNOWN_TARGET = b"."
"""As rsync 3.2.7 has it of some names."""
OUT_FORMAT = f"{MARKER.decode()}{_FORMAT}"
"""With the checksum, for a reason of its own too: rsync then prints the line after the transfer of a file."""
CHECKSUM_BYTES = 16
LINE_LIMIT_BYTES = 32 * 1024
"""Above the longest line: a path of 4096 bytes, each of them written as four."""
# Update, kind of file, what differs (some releases know fewer letters); the checksum's width is its algorithm's.
_LINE = re.compile(
    rb"(?:(?P<deleted>\*deleting) *|(?P<kind>[<>ch.*])(?P<file_type>[fdLDS])(?P<differs>[^ |]{5,12}| {5,12}))"
    rb"\|(?P<checksum>[0-9a-f]*) *\|(?P<name>.+)",
    re.DOTALL,
)
_ESCAPE = re.compile(rb"\\#([0-3][0-7]{2})")
_NEW = b"+++"
_HEADER = struct.Struct("=cH")
_FOLLOW_SECONDS = 0.05
_CHUNK_BYTES = 256 * 1024
_PATH_LIMIT_BYTES = 4096


class ChangeKind(StrEnum):
    """What became of an entry."""

    CHANGED = "changed"
    DELETED = "deleted"


class Change(msgspec.Struct, frozen=True):
    """An entry that is not as it was in the snapshot before."""

    path: bytes
    """Relative to the tree, as the file system has it; the tree itself is ``b"."``."""
    kind: ChangeKind
    is_file: bool = False
    """True where rsync said that it is a regular file."""
    link_target: bytes = b""
    """The name in the tree that this one is a further name of, where rsync would make it by linking."""


class ItemizedLine(msgspec.Struct, frozen=True):
    """A line of ``OUT_FORMAT``, read."""

    path: bytes
    is_deleted: bool = False
    is_new: bool = False
    file_type: bytes = b""
    """``f``, ``d``, ``L``, ``D`` or ``S``; empty for what was deleted."""
    checksum: bytes | None = None
    """Whatever algorithm it is of."""
    link_target: bytes = b""
    """The name of the same file to which rsync would link this one. A plan alone tells it."""
    is_linked: bool = False
    """True where rsync would link it to another name."""

    @property
    def is_new_file(self) -> bool:
        return self.is_new and self.file_type == b"f"


def random_marker() -> bytes:
    """Return a mark for one run, drawn by lot.

    A machine's messages come in the stream of rsync's lines, and need not end with a line break. No text of theirs can
    look like a line with this mark, nor begin one that hides it. That something was deleted a machine can have printed
    all the same: rsync has a message for it, and makes the line itself.
    """
    return MARKER + secrets.token_hex(8).encode() + MARKER


def out_format(mark: bytes, *, has_targets: bool = False) -> str:
    """Return ``OUT_FORMAT`` with another mark; with ``has_targets`` lines also say what a name is linked to."""
    return mark.decode() + (_TARGET_FORMAT if has_targets else _FORMAT)


def parse(text: bytes, mark: bytes = MARKER, *, has_targets: bool = False) -> ItemizedLine | None:
    """What a line says; None where it is not understood, or names a path that leads out of the tree."""
    if not text.startswith(mark):
        return None
    match = _LINE.fullmatch(text[len(mark) :].removesuffix(b"\n"))
    if match is None:
        return None
    name, target = match["name"], b""
    if has_targets:
        parts = _split_target(name)
        if parts is None:
            return None
        name, target = parts
        if match["kind"] != b"h" or target == _UNKNOWN_TARGET:
            target = b""
    # rsync marks a directory with a slash.
    path = unescape(name).removesuffix(b"/")
    target = unescape(target)
    if target and (len(target) > _PATH_LIMIT_BYTES or not is_entry_path(target)):
        return None
    if len(path) > _PATH_LIMIT_BYTES or (path != b"." and not is_entry_path(path)):
        return None
    if match["deleted"]:
        return ItemizedLine(path, is_deleted=True)
    checksum = match["checksum"]
    return ItemizedLine(
        path,
        is_new=match["differs"].startswith(_NEW),
        file_type=match["file_type"],
        checksum=bytes.fromhex(checksum.decode("ascii")) if len(checksum) == 2 * CHECKSUM_BYTES else None,
        link_target=target,
        is_linked=match["kind"] == b"h" and match["differs"].strip(b" +") == b"",
    )


def _split_target(text: bytes) -> tuple[bytes, bytes] | None:
    """Return name and target of a line that has the target before the name; None where it has two readings.

    Most lines have no target. Those of links have one, and either part may hold what divides the two.
    """
    if text.startswith(b"|"):
        return text[1:], b""
    for arrow in (_LINKED_TO, _POINTS_TO):
        if text.startswith(arrow) and text.count(b"|") == 1:
            target, _divided, name = text.removeprefix(arrow).partition(b"|")
            return name, target
    return None


def unescape(name: bytes) -> bytes:
    r"""The name as the file system has it: rsync writes ``\#012`` for a line break, and for ``\#`` with digits too."""
    if b"\\#" not in name:
        return name
    return _ESCAPE.sub(lambda match: bytes([int(match[1], 8)]), name)


class ChangeLog:
    """The changes of one run, in the order in which rsync told them; ended, and gone, with its block.

    Written by one, then read by any number, as often as they like.
    """

    def __init__(self, directory: Path | None = None) -> None:
        """``directory`` is where the spool lies, without a name; by default where temporary files do."""
        self.lists_every_change = False
        """Whether they tell everything that differs from the snapshot before: deletions too, and of a file with several
        names each name."""
        self.lists_every_written_file = False
        """Whether they tell every file that this run wrote; what a run before it had brought over may be missing."""
        self._count = 0
        self.size_bytes = 0
        """What they take on the disk."""
        descriptor = fs.create_unnamed_file(directory or Path(tempfile.gettempdir()).resolve())
        self._file: IO[bytes] = os.fdopen(descriptor, "w+b")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def __len__(self) -> int:
        return self._count

    def add_line(self, line: ItemizedLine) -> None:
        """Take note of what a line says; but for the checksum, which a machine may have forged."""
        kind = ChangeKind.DELETED if line.is_deleted else ChangeKind.CHANGED
        self.add(Change(line.path, kind, is_file=line.file_type == b"f", link_target=line.link_target))

    def flush(self) -> None:
        """Let whoever follows see all that was added."""
        self._file.flush()

    def clear(self) -> None:
        """Forget all."""
        self._file.seek(0)
        self._file.truncate()
        self._count = self.size_bytes = 0
        self.lists_every_change = False
        self.lists_every_written_file = False

    def add(self, change: Change) -> None:
        """Take note of a change."""
        kind = b"d" if change.kind is ChangeKind.DELETED else b"f" if change.is_file else b"c"
        written = change.path
        if change.link_target:
            # No name has a NUL in it.
            kind, written = kind.upper(), b"%b\0%b" % (change.path, change.link_target)
        self._file.write(_HEADER.pack(kind, len(written)) + written)
        self._count += 1
        self.size_bytes += _HEADER.size + len(written)

    def __iter__(self) -> Iterator[Change]:
        self._file.flush()
        return self._read(lambda: True)

    def follow(self, is_over: threading.Event) -> Iterator[Change]:
        """Yield the changes while another thread adds to them, until it says that it is over, and the last of them."""

        def is_at_end() -> bool:
            if not is_over.is_set():
                is_over.wait(_FOLLOW_SECONDS)
                return False
            return True

        yield from self._read(is_at_end)

    def _read(self, is_at_end: Callable[[], bool]) -> Iterator[Change]:
        descriptor = self._file.fileno()
        offset = 0
        buffer = b""
        while True:
            # Asked before reading: what is written until then is read.
            is_last = is_at_end()
            while chunk := os.pread(descriptor, _CHUNK_BYTES, offset):
                offset += len(chunk)
                buffer += chunk
                begin = 0
                while len(buffer) - begin >= _HEADER.size:
                    kind, path_length = _HEADER.unpack_from(buffer, begin)
                    end = begin + _HEADER.size + path_length
                    if end > len(buffer):
                        break
                    path, _nul, target = buffer[begin + _HEADER.size : end].partition(b"\0")
                    yield Change(
                        path,
                        ChangeKind.DELETED if kind == b"d" else ChangeKind.CHANGED,
                        is_file=kind in (b"f", b"F"),
                        link_target=target,
                    )
                    begin = end
                buffer = buffer[begin:]
            if is_last:
                return
