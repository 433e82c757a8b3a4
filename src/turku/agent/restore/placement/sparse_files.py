"""Sparse files: holes are made in restored files here, where the storage says which files have some.

If rsync were asked for holes, it would write every file in pieces of one kilobyte.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable

from turku.agent.restore import manifest
from turku.agent.restore.result import ProblemList
from turku.core.filesystem import directory_tree, holes
from turku.errors import MalformedMessage
from turku.protocol.restore_messages import WITH_HOLES_LIMIT, WITH_HOLES_LIMIT_BYTES, WirePath

_CHANGING_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_LOG = logging.getLogger(__name__)


class SparseFiles:
    """The files of one restore that have holes. One thread adds them."""

    def __init__(self) -> None:
        self._paths: set[bytes] = set()
        self._size_bytes = 0

    def add(self, paths: Iterable[WirePath]) -> None:
        """Add paths that the storage sent. Raises MalformedMessage for an invalid path, and for too many paths."""
        for each in paths:
            path = manifest.checked_path(each, "list of files with holes")
            self._paths.add(path)
            self._size_bytes += len(path)
        if len(self._paths) > WITH_HOLES_LIMIT or self._size_bytes > WITH_HOLES_LIMIT_BYTES:
            raise MalformedMessage("the storage's list of files with holes is too long")

    def dig_holes(self, tree: int, problems: ProblemList) -> None:
        """Make holes in the files that arrived below ``tree``. A file that has holes already stays as it is."""
        for path in sorted(self._paths):
            try:
                descriptor = directory_tree.open_file(tree, path, _CHANGING_FLAGS)
            except PermissionError as error:
                problems.add(path, f"is restored without its holes: {error.strerror}")
                continue
            except OSError as error:
                # A file that did not arrive is reported elsewhere.
                _LOG.debug("%s: no holes are made: %s", os.fsdecode(path), error.strerror)
                continue
            try:
                if not holes.has_holes(os.fstat(descriptor)):
                    holes.punch_all_zeros(descriptor)
            except OSError as error:
                problems.add(path, f"is restored without its holes: {error.strerror}")
            finally:
                os.close(descriptor)
