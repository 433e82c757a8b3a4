"""The change log of a run: the entries that it added, changed or deleted, as rsync itemized them.

rsync prints a line for each entry that it makes, changes or deletes. The lines of 1,000,000 files are kept in a file
without a name, not in memory. A machine's daemon can have lines printed too. The lines of a backup therefore begin with
a marker that it does not know (``random_marker``), and paths are checked like everything from the network.
"""

import os
import re
import secrets
import struct
import tempfile
import threading
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import IO, Self

import msgspec

from turku.core.filesystem.paths import is_entry_path
from turku.storage.fs import tree as fs

MARKER = b":"
"""The beginning of each line of ``OUT_FORMAT``. No other line of rsync begins so."""
_FORMAT, _TARGET_FORMAT = "%i|%C|%n", "%i|%C|%L|%n"
_LINKED_TO, _POINTS_TO = b" => ", b" -> "
_UNKNOWN_TARGET = b"."
"""The target that rsync 3.2.7 prints for some names."""
OUT_FORMAT = f"{MARKER.decode()}{_FORMAT}"
"""The output format with the checksum, which also makes rsync print the line after the transfer of a file."""
CHECKSUM_BYTES = 16
LINE_LIMIT_BYTES = 32 * 1024
"""More than the longest line has: a path of 4096 bytes, each of them written as four."""
# Update type, file type, differences (some releases know fewer letters), and a checksum as wide as its algorithm's.
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
    """The kind of a change."""

    CHANGED = "changed"
    DELETED = "deleted"


class Change(msgspec.Struct, frozen=True):
    """An entry that differs from the base snapshot."""

    path: bytes
    """Path relative to the tree, as the file system has it. The tree itself is ``b"."``."""
    kind: ChangeKind
    is_file: bool = False
    """True if rsync reported a regular file."""
    link_target: bytes = b""
    """The path of the same file to which rsync would make a hard link."""


class ItemizedLine(msgspec.Struct, frozen=True):
    """A parsed line of ``OUT_FORMAT``."""

    path: bytes
    is_deleted: bool = False
    is_new: bool = False
    file_type: bytes = b""
    """``f``, ``d``, ``L``, ``D`` or ``S``. Empty for deleted entries."""
    checksum: bytes | None = None
    """The checksum of the algorithm that rsync negotiated."""
    link_target: bytes = b""
    """The path of the same file to which rsync would make a hard link. Only a dry run prints it."""
    is_linked: bool = False
    """True if rsync would make a hard link."""

    @property
    def is_new_file(self) -> bool:
        return self.is_new and self.file_type == b"f"


def random_marker() -> bytes:
    """Return a random marker for one run.

    A machine's messages come in the stream of rsync's lines, and need not end with a line break. None of them can look
    like a line with this marker, or begin a line that hides it. A machine can still have a deletion printed, because
    rsync has a message for it and makes the line itself.
    """
    return MARKER + secrets.token_hex(8).encode() + MARKER


def out_format(mark: bytes, *, has_targets: bool = False) -> str:
    """Return ``OUT_FORMAT`` with another marker. With ``has_targets`` lines also have the target of a link."""
    return mark.decode() + (_TARGET_FORMAT if has_targets else _FORMAT)


def parse(text: bytes, mark: bytes = MARKER, *, has_targets: bool = False) -> ItemizedLine | None:
    """Return the parsed line. None if it is malformed, or has a path that leads out of the tree."""
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
    # rsync appends a slash to a directory.
    path = unescape(name).removesuffix(b"/")
    target = unescape(target)
    if not (_is_valid(path) or path == b".") or (target and not _is_valid(target)):
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


def _is_valid(path: bytes) -> bool:
    return len(path) <= _PATH_LIMIT_BYTES and is_entry_path(path)


def _split_target(text: bytes) -> tuple[bytes, bytes] | None:
    """Return name and target of a line that has the target before the name. None if it is ambiguous.

    Most lines have no target. Lines of links have one, and either part may contain the separator.
    """
    if text.startswith(b"|"):
        return text[1:], b""
    for arrow in (_LINKED_TO, _POINTS_TO):
        if text.startswith(arrow) and text.count(b"|") == 1:
            target, _divided, name = text.removeprefix(arrow).partition(b"|")
            return name, target
    return None


def unescape(name: bytes) -> bytes:
    r"""Return the name as the file system has it. rsync writes ``\#012`` for a line break, and escapes ``\#`` too."""
    if b"\\#" not in name:
        return name
    return _ESCAPE.sub(lambda match: bytes([int(match[1], 8)]), name)


class ChangeLog:
    """The changes of one run in the order in which rsync reported them. A context manager that deletes its file.

    One thread writes it, and any number of threads read it, repeatedly.
    """

    def __init__(self, directory: Path | None = None) -> None:
        """``directory`` holds the spool file without a name, by default the directory of temporary files."""
        self.lists_every_change = False
        """True if the log has every difference from the base, including deletions and all names of a file."""
        self.lists_every_written_file = False
        """True if the log has every file that this run wrote. Files of earlier runs may be missing."""
        self._count = 0
        self.size_bytes = 0
        """Size of the log on the disk."""
        descriptor = fs.create_unnamed_file(directory or Path(tempfile.gettempdir()).resolve())
        self._file: IO[bytes] = os.fdopen(descriptor, "w+b")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return self._count

    def add_line(self, line: ItemizedLine) -> None:
        """Add the change of a line without its checksum, which a machine may have forged."""
        kind = ChangeKind.DELETED if line.is_deleted else ChangeKind.CHANGED
        self.add(Change(line.path, kind, is_file=line.file_type == b"f", link_target=line.link_target))

    def flush(self) -> None:
        """Make all added changes visible to ``follow``."""
        self._file.flush()

    def clear(self) -> None:
        """Remove all changes."""
        self._file.seek(0)
        self._file.truncate()
        self._count = self.size_bytes = 0
        self.lists_every_change = False
        self.lists_every_written_file = False

    def add(self, change: Change) -> None:
        """Add a change."""
        kind = b"d" if change.kind is ChangeKind.DELETED else b"f" if change.is_file else b"c"
        written = change.path
        if change.link_target:
            # No name contains NUL.
            kind, written = kind.upper(), b"%b\0%b" % (change.path, change.link_target)
        self._file.write(_HEADER.pack(kind, len(written)) + written)
        self._count += 1
        self.size_bytes += _HEADER.size + len(written)

    def __iter__(self) -> Iterator[Change]:
        self._file.flush()
        return self._read(lambda: True)

    def follow(self, is_over: threading.Event) -> Iterator[Change]:
        """Yield the changes while another thread adds to them, until it sets ``is_over``, including the last ones."""

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
            # Checked before reading, so that everything written until then is read.
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
