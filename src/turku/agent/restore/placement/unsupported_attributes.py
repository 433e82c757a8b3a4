"""Attributes of restored files that cannot be set in the target: they are counted and reported.

A file that loses its ACL keeps the mask of the ACL as the permissions of its group, which may be more than the group
was allowed. Its mode is then reduced to what the ACL allowed.
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

from turku.agent.restore import manifest
from turku.agent.restore.result import ProblemList, count_of
from turku.core.filesystem import directory_tree, posix_acl, removal
from turku.core.filesystem.paths import split
from turku.core.filesystem.spool import Spool
from turku.core.log import one_line
from turku.errors import MalformedMessage
from turku.protocol.restore_messages import UnsetEntry

_SPOOL_LIMIT_BYTES = 4 * 1024**3
_NAMED_LIMIT = 20
"""The most attributes that are named, because a storage decides how many there are."""
_HANDLE_FLAGS = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class UnsupportedAttributes:
    """The attributes that one restore could not set. A context manager. One thread adds them."""

    def __init__(self, spool_directory: Path | None = None) -> None:
        self._acls = Spool(spool_directory)
        self._names: Counter[str] = Counter()
        self._others = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._acls.close()

    def add(self, entry: UnsetEntry) -> None:
        """Add the attributes of one path. Raises MalformedMessage for an invalid path."""
        path = manifest.checked_path(entry.path, "list of attributes")
        if self._acls.size_bytes > _SPOOL_LIMIT_BYTES:
            raise MalformedMessage("the storage's list of attributes is larger than that of any restore")
        if posix_acl.ACCESS in entry.names or posix_acl.DEFAULT in entry.names:
            self._acls.add(msgspec.msgpack.encode((path, entry.group)))
        for name in entry.names:
            if name in (posix_acl.ACCESS, posix_acl.DEFAULT):
                continue
            if name in self._names or len(self._names) < _NAMED_LIMIT:
                self._names[name] += 1
            else:
                self._others += 1

    def narrow_modes(self, tree: int, problems: ProblemList) -> None:
        """Reduce the mode of each file below ``tree`` to what its lost ACL allowed, and add it to the problems."""
        for item in self._acls:
            path, group = msgspec.msgpack.decode(item, type=tuple[bytes, int | None])
            problems.add(path, "is restored without its ACL, which cannot be set here: whom that named may do less")
            if group is not None:
                try:
                    _narrow_mode(tree, path, group)
                except OSError as error:
                    problems.add(path, f"may be open to its group, as its mode cannot be changed: {error.strerror}")

    def warnings(self) -> Iterator[str]:
        """Yield a sentence for each attribute that files lose, other than ACLs."""
        for name, count in sorted(self._names.items()):
            yield f"{count_of(count, 'file')} restored without the attribute {one_line(name)}, which cannot be set here"
        if self._others:
            yield f"{count_of(self._others, 'further attribute')} of files cannot be set here"


def _narrow_mode(tree: int, path: bytes, group: int) -> None:
    above, name = split(path)
    try:
        with directory_tree.opened_directory(tree, above) as directory:
            handle = os.open(name or b".", _HANDLE_FLAGS, dir_fd=directory)
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        found = os.fstat(handle)
        if not stat.S_ISLNK(found.st_mode):
            removal.set_mode_of_handle(handle, posix_acl.narrowed(stat.S_IMODE(found.st_mode), group))
    finally:
        os.close(handle)
