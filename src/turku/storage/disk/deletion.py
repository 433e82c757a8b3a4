"""Trees marked for deletion: hidden entries beside the snapshots, which no snapshot and no trash entry needs any more.

Deleting a tree may take long. ``collect`` therefore takes no lock that a backup waits for, and can stop and continue at
any moment. A lock of its own keeps two processes from deleting the same tree.
"""

import logging
from collections.abc import Callable
from pathlib import Path

from turku.errors import LockHeld, TurkuError
from turku.storage.disk import snapshot_links
from turku.storage.disk.source_directory import DELETING_PREFIX, SourceDirectory
from turku.storage.fs import tree as fs
from turku.storage.fs.remove import remove_tree

GoOn = Callable[[], bool]
"""A callback that is asked every now and then whether to go on."""
_LOG = logging.getLogger(__name__)


def mark(place: SourceDirectory, name: str) -> None:
    """Take the snapshot or trash entry ``name`` out of history at once. ``collect`` frees its space."""
    snapshot_links.hand_over(place, name)
    fs.rename(place.snapshot(name), path_of(place, name))
    fs.unlink(place.record_path(name))


def path_of(place: SourceDirectory, name: str) -> Path:
    """Return the path of a tree that is marked for deletion under ``name``."""
    return place.snapshots_dir / f"{DELETING_PREFIX}{name}"


def marked(place: SourceDirectory) -> list[Path]:
    """Return the trees of the source that are marked for deletion."""
    return [place.snapshot(name) for name in fs.names(place.snapshots_dir) if name.startswith(DELETING_PREFIX)]


def collect(place: SourceDirectory, go_on: GoOn = lambda: True) -> int:
    """Delete the marked trees until ``go_on`` says no, and return how many were deleted.

    Returns 0 while another process is collecting. A tree that cannot be deleted is a warning on the log.
    """
    count = 0
    if not marked(place):
        return count
    try:
        with fs.locked_directory(place.snapshots_dir):
            for tree in marked(place):
                if not go_on():
                    break
                count += _remove_without_failing(tree, go_on)
    except LockHeld:
        _LOG.debug("%s: another process is deleting what left history", place.snapshots_dir)
    except OSError as error:
        _LOG.warning("%s: cannot clean up: %s", place.snapshots_dir, error.strerror or error)
    return count


def is_without_data(place: SourceDirectory) -> bool:
    """Return True if directories of the source exist and nothing was ever stored in them."""
    has_tree = fs.is_directory(place.working_tree)
    if has_tree and (not fs.exists(place.unfinished_mark) or fs.names(place.working_tree)):
        return False
    if fs.is_directory(place.snapshots_dir):
        entries = set(fs.names(place.snapshots_dir)) - {place.staging.name}
        return not entries and not fs.names(place.staging)
    return has_tree


def remove_without_data(place: SourceDirectory) -> bool:
    """Remove the directories of a source of which nothing was ever stored, such as one whose path is mistyped.

    Return True if there were some. The caller holds the lock of the source. Raises OSError.
    """
    if not is_without_data(place):
        return False
    # None that got an entry meanwhile can be removed.
    for path in (place.staging, place.snapshots_dir, place.working_tree):
        if fs.is_directory(path):
            fs.remove_directory(path)
    fs.unlink(place.unfinished_mark)
    return True


def _remove_without_failing(tree: Path, go_on: GoOn) -> bool:
    try:
        return remove_tree(tree, go_on)
    except (TurkuError, OSError) as error:
        _LOG.warning("%s cannot be deleted, the next run tries again: %s", tree, error)
        return False
