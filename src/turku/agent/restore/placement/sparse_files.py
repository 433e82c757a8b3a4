"""Holes of restored files, made here where the storage says which files have some.

Asked for holes, rsync writes each kilobyte of every file by itself.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable

from turku.agent.restore.problems import ProblemList
from turku.core.filesystem import directory_tree, holes
from turku.errors import InvalidValue, MalformedMessage
from turku.policy import names
from turku.protocol.restore_messages import WITH_HOLES_LIMIT, WITH_HOLES_LIMIT_BYTES, WirePath, path_bytes

_CHANGING_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_LOG = logging.getLogger(__name__)


class SparseFiles:
    """The files of one restore that have holes. Told of them by one thread."""

    def __init__(self) -> None:
        self._paths: set[bytes] = set()
        self._size_bytes = 0

    def add(self, paths: Iterable[WirePath]) -> None:
        """Take note of paths. Raises MalformedMessage for one that is none, and for too many."""
        for each in paths:
            try:
                path = names.path_inside(path_bytes(each))
            except InvalidValue as error:
                raise MalformedMessage(f"the storage's list of files with holes: {error.message}") from error
            self._paths.add(path)
            self._size_bytes += len(path)
        if len(self._paths) > WITH_HOLES_LIMIT or self._size_bytes > WITH_HOLES_LIMIT_BYTES:
            raise MalformedMessage("the storage's list of files with holes is longer than it may be")

    def dig_holes(self, tree: int, problems: ProblemList) -> None:
        """Make the holes in those files that arrived below ``tree``. What has some already is left alone."""
        for path in sorted(self._paths):
            try:
                descriptor = directory_tree.open_file(tree, path, _CHANGING_FLAGS)
            except PermissionError as error:
                problems.add(path, f"is restored without its holes: {error.strerror}")
                continue
            except OSError as error:
                # What did not arrive is told of elsewhere.
                _LOG.debug("%s: no holes are made: %s", os.fsdecode(path), error.strerror)
                continue
            try:
                if not holes.has_holes(os.fstat(descriptor)):
                    holes.dig_all(descriptor)
            except OSError as error:
                problems.add(path, f"is restored without its holes: {error.strerror}")
            finally:
                os.close(descriptor)
