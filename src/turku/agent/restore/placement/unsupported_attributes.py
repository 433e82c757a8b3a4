"""What restored files lose because it cannot be set here: counted, named, and never to anybody's gain.

Without its ACL a file has the mask of that list where its mode has the group's permissions, which may be more than its
group was allowed. The mode is then made as narrow as the list was.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from turku.agent.restore.problems import ProblemList
from turku.agent.restore.progress import count_of
from turku.core.filesystem import directory_tree, posix_acl, removal
from turku.core.log import one_line
from turku.core.paths import split
from turku.core.spool import Spool
from turku.errors import InvalidValue, MalformedMessage
from turku.policy import names
from turku.protocol.restore_messages import UnsetEntry, path_bytes

_SPOOL_LIMIT_BYTES = 4 * 1024**3
_NAMED_LIMIT = 20
"""Attributes that are named; a storage decides how many there are."""
_PASSING_FLAGS = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class UnsupportedAttributes:
    """What one restore could not set; a context manager. Told of it by one thread."""

    def __init__(self, spool_directory: Path | None = None) -> None:
        self._lists = Spool(spool_directory)
        self._names: Counter[str] = Counter()
        self._others = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lists.close()

    def add(self, entry: UnsetEntry) -> None:
        """Take note of a path. Raises MalformedMessage for one that is none."""
        try:
            path = names.path_inside(path_bytes(entry.path))
        except InvalidValue as error:
            raise MalformedMessage(f"the storage's list of attributes: {error.message}") from error
        if self._lists.size_bytes > _SPOOL_LIMIT_BYTES:
            raise MalformedMessage("the storage's list of attributes is larger than that of any restore")
        if posix_acl.ACCESS in entry.names or posix_acl.DEFAULT in entry.names:
            self._lists.add(msgspec.msgpack.encode((path, entry.group)))
        for name in entry.names:
            if name in (posix_acl.ACCESS, posix_acl.DEFAULT):
                continue
            if name in self._names or len(self._names) < _NAMED_LIMIT:
                self._names[name] += 1
            else:
                self._others += 1

    def narrow_modes(self, tree: int, problems: ProblemList) -> None:
        """Let nobody do more with a file below ``tree`` than its ACL allowed, and add each to the problems."""
        for item in self._lists:
            path, group = msgspec.msgpack.decode(item, type=tuple[bytes, int | None])
            problems.add(path, "is restored without its ACL, which cannot be set here: whom that named may do less")
            if group is not None:
                try:
                    _narrow(tree, path, group)
                except OSError as error:
                    problems.add(path, f"may be open to its group, as its mode cannot be changed: {error.strerror}")

    def warnings(self) -> Iterator[str]:
        """Yield a sentence for each attribute that files lose, other than ACLs."""
        for name, count in sorted(self._names.items()):
            yield f"{count_of(count, 'file')} restored without the attribute {one_line(name)}, which cannot be set here"
        if self._others:
            yield f"{count_of(self._others, 'further attribute')} of files cannot be set here"


def _narrow(tree: int, path: bytes, group: int) -> None:
    above, name = split(path)
    try:
        directory = directory_tree.open_directory(tree, above)
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        handle = os.open(name or b".", _PASSING_FLAGS, dir_fd=directory)
    except FileNotFoundError:
        return
    finally:
        os.close(directory)
    try:
        found = os.fstat(handle)
        if not stat.S_ISLNK(found.st_mode):
            removal.set_mode_of_handle(handle, posix_acl.narrowed(stat.S_IMODE(found.st_mode), group))
    finally:
        os.close(handle)
