"""What left history and is still on the disk: hidden trees beside the snapshots, which nobody needs any more.

Removing them may take long, so it takes no lock that a backup waits for, and can stop at any moment and go on at
another one. A lock of its own keeps two from removing the same.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from turku.errors import LockHeld, TurkuError
from turku.storage.disk.source_directory import DELETING_PREFIX, SourceDirectory
from turku.storage.fs import tree as fs
from turku.storage.fs.remove import remove_tree

GoOn = Callable[[], bool]
"""Asked every now and then whether to go on."""
_LOG = logging.getLogger(__name__)


def trees(place: SourceDirectory) -> list[Path]:
    """Return what is to be removed."""
    return [place.snapshot(name) for name in fs.names(place.snapshots_dir) if name.startswith(DELETING_PREFIX)]


def remove(place: SourceDirectory, go_on: GoOn = lambda: True) -> int:
    """How many trees were removed, until ``go_on`` said no; none while another process is at it.

    What cannot be removed is a warning.
    """
    count = 0
    if not trees(place):
        return count
    try:
        with fs.locked_directory(place.snapshots_dir):
            for tree in trees(place):
                if not go_on():
                    break
                count += _remove_without_failing(tree, go_on)
    except LockHeld:
        _LOG.debug("%s: another process is removing what left history", place.snapshots_dir)
    except OSError as error:
        _LOG.warning("%s: cannot clean up: %s", place.snapshots_dir, error.strerror or error)
    return count


def _remove_without_failing(tree: Path, go_on: GoOn) -> bool:
    try:
        return remove_tree(tree, go_on)
    except (TurkuError, OSError) as error:
        _LOG.warning("%s: cannot be removed, the next run tries again: %s", tree, error)
        return False
