"""The entries of a source that changed since a moment, by their change times, and its sparse files.

One scan finds both, and reads no content.

The kernel sets an entry's change time at each change of its content, attributes and links, by its own clock, and nobody
can set it back. Two actions bring entries with older change times to a path: moving a directory there, and mounting a
file system there. Both bring a directory that was not at its path before. So a scan records the path of each directory,
and everything below a directory that was elsewhere at the last scan counts as changed.
"""

import os
import stat
import struct
from array import array
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

import xxhash

from turku.agent.capture import mounts
from turku.core.filesystem import holes
from turku.core.filesystem.directory_tree import DirectoryTree
from turku.core.filesystem.paths import joined
from turku.core.filesystem.spool import Stack
from turku.protocol.machine.changed_entries_messages import OWN_DIRECTORY

_LOCAL_FILE_SYSTEMS: Final = frozenset(
    ["bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "jfs", "overlay", "ramfs", "reiserfs", "tmpfs", "xfs", "zfs"]
)
"""File systems that take change times from this machine's clock, and set them when an entry is renamed."""
_DIRECTORIES_LIMIT: Final = 500_000
_ENTRIES_BETWEEN_QUESTIONS: Final = 1000
_IDENTITY: Final = struct.Struct("=QQ")
_CAME, _KNOWN = b"+", b"="
"""The mark before a path on the stack: the directory above it is new at its path, or known there."""


class ScanUncertain(Exception):
    """The scan cannot report every entry. The message is the reason."""


class DirectoryDigests:
    """The directories of a source with their paths, as one digest each, so that a million take little memory."""

    def __init__(self, digests: Iterable[int]) -> None:
        self._sorted = array("Q", sorted(digests))

    @classmethod
    def of(cls, content: bytes) -> Self:
        """Return the directories of an earlier ``content``. Raises ValueError."""
        found = cls(())
        found._sorted.frombytes(content)
        return found

    @property
    def content(self) -> bytes:
        """The serialized digests, for ``of``."""
        return self._sorted.tobytes()

    def __contains__(self, digest: int) -> bool:
        position = bisect_left(self._sorted, digest)
        return position < len(self._sorted) and self._sorted[position] == digest


def _digest(path: bytes, found: os.stat_result) -> int:
    return xxhash.xxh3_64_intdigest(_IDENTITY.pack(found.st_dev, found.st_ino) + path)


@dataclass
class ChangeScan:
    """One scan of a source. ``run`` names changed entries and returns the directories for the next scan.

    Without ``known``, the directories of an earlier scan, no changed entry is named. ``go_on`` is called regularly, and
    whatever it raises ends the scan.
    """

    path: str
    known: DirectoryDigests | None = None
    since_ns: int = 0
    """A moment before that earlier scan, in Unix nanoseconds."""
    hidden: Collection[Path] = ()
    """Directories below the path that are not backed up."""
    emptied: Collection[Path] = ()
    """Directories below the path that are backed up as empty."""
    name: Callable[[bytes], None] = lambda _path: None
    """A callback for the path of each changed entry, relative to the source."""
    name_with_holes: Callable[[bytes], None] = lambda _path: None
    """A callback for the path of each file that has holes, changed or not."""
    go_on: Callable[[], None] = lambda: None
    _found: "array[int]" = field(default_factory=lambda: array("Q"))
    _devices: set[int] = field(default_factory=set)
    _emptied: frozenset[bytes] = frozenset()

    def run(self) -> DirectoryDigests:
        """Return the directories of the source. Raises Uncertain."""
        try:
            # The path of the source itself may contain links, which rsync follows too.
            root = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            with DirectoryTree(root) as tree, Stack() as waiting:
                hidden = self._relative(self.hidden)
                self._emptied = self._relative(self.emptied)
                waiting.push(_KNOWN)
                while (item := waiting.pop()) is not None:
                    self.go_on()
                    mark, path = item[:1], item[1:]
                    came, inner = self._directory(tree.directory(path), path, came=mark == _CAME)
                    below = [joined(path, name) for name in inner]
                    waiting.push_all((_CAME if came else _KNOWN) + each for each in below if each not in hidden)
        except (OSError, ValueError) as error:
            raise ScanUncertain(str(error)) from error
        return DirectoryDigests(self._found)

    def _relative(self, paths: Collection[Path]) -> frozenset[bytes]:
        return frozenset(os.fsencode(each.relative_to(self.path)) for each in paths)

    def _directory(self, directory: int, path: bytes, *, came: bool) -> tuple[bool, list[bytes]]:
        """Scan one directory. Return True where it is new at its path, and the names of the directories in it."""
        before = os.fstat(directory)
        self._require_local(directory, before)
        if len(self._found) >= _DIRECTORIES_LIMIT:
            raise ScanUncertain(f"there are more than {_DIRECTORIES_LIMIT} directories")
        digest = _digest(path, before)
        self._found.append(digest)
        is_told = self.known is not None
        came = came or (self.known is not None and digest not in self.known)
        if is_told and (came or before.st_ctime_ns >= self.since_ns):
            self.name(path or OWN_DIRECTORY)
        inner = []
        for number, entry in enumerate(_entries(directory), 1):
            if number % _ENTRIES_BETWEEN_QUESTIONS == 0:
                self.go_on()
            found = entry.stat(follow_symlinks=False)
            is_emptied = bool(self._emptied) and _path_of(entry, path) in self._emptied
            # By path and not by device, because a subvolume that is not mounted is backed up and has its own device.
            if stat.S_ISDIR(found.st_mode) and not is_emptied:
                inner.append(os.fsencode(entry.name))
                continue
            if holes.has_holes(found):
                self.name_with_holes(_path_of(entry, path))
            # The device shows a single file that is mounted over another one.
            if is_told and (found.st_ctime_ns >= self.since_ns or came or found.st_dev != before.st_dev or is_emptied):
                self.name(_path_of(entry, path))
        if os.fstat(directory).st_ctime_ns != before.st_ctime_ns:
            raise ScanUncertain(f"{os.fsdecode(path) or '.'} changed while it was read")
        return came, inner

    def _require_local(self, directory: int, found: os.stat_result) -> None:
        if found.st_dev not in self._devices:
            kind = file_system(directory)
            if kind not in _LOCAL_FILE_SYSTEMS:
                raise ScanUncertain(f"change times of the file system {kind} may be those of another clock")
            self._devices.add(found.st_dev)


def _entries(directory: int) -> Iterator[os.DirEntry[str]]:
    with os.scandir(directory) as listing:
        yield from listing


def _path_of(entry: os.DirEntry[str], directory: bytes) -> bytes:
    return joined(directory, os.fsencode(entry.name))


def file_system(descriptor: int, *, process: Path = Path("/proc/self")) -> str:
    """Return the type of the file system that an open file lies on, as mount names it. Raises OSError, ValueError."""
    for line in (process / f"fdinfo/{descriptor}").read_text(encoding="ascii").splitlines():
        key, _colon, value = line.partition(":")
        if key == "mnt_id":
            mount = value.strip()
            break
    else:
        raise ValueError("the kernel does not say which mount a directory is on")
    for each in mounts.all_mounts(process / "mountinfo"):
        if str(each.number) == mount:
            return each.file_system
    raise ValueError(f"the kernel does not list the mount {mount} that a directory is on")
