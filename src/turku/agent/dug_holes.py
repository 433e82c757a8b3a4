"""Holes of restored files, made here where the storage says which files have some.

Asked for holes, rsync writes each kilobyte of every file by itself.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from turku.agent.problems import Problems
from turku.core import directory_tree, holes
from turku.core.spool import Spool
from turku.errors import MalformedMessage, PolicyError
from turku.policy import names
from turku.protocol.restore_messages import WirePath, path_bytes

_SPOOL_LIMIT_BYTES = 1024**3
_CHANGING_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_LOG = logging.getLogger(__name__)


class DugHoles:
    """The files of one restore that have holes; a context manager. Told of them by one thread."""

    def __init__(self, spool_directory: Path | None = None) -> None:
        self._paths = Spool(spool_directory)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._paths.close()

    def add(self, paths: Iterable[WirePath]) -> None:
        """Take note of paths. Raises MalformedMessage for one that is none."""
        for each in paths:
            try:
                path = names.path_inside(path_bytes(each))
            except PolicyError as error:
                raise MalformedMessage(f"the storage's list of files with holes: {error.message}") from error
            if self._paths.size_bytes > _SPOOL_LIMIT_BYTES:
                raise MalformedMessage("the storage's list of files with holes is larger than that of any restore")
            self._paths.add(path)

    def make(self, tree: int, problems: Problems) -> None:
        """Make the holes in those files that arrived below ``tree``. What has some already is left alone."""
        for path in self._paths:
            try:
                descriptor = directory_tree.open_file(tree, path, _CHANGING_FLAGS)
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
