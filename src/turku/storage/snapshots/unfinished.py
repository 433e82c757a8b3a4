"""What failed runs brought over, gathered in one hidden tree from which the next run takes instead of the machine.

rsync must never write into a left-over tree: its files may be hard links into the newest snapshot, and a changed mode,
owner or time would change there too. As a second ``--link-dest`` it is only read.
"""

from __future__ import annotations

import errno
import os
import secrets
from pathlib import Path

from turku.core import durable
from turku.errors import BackupFailed
from turku.storage.snapshots import subvolume, tree_removal
from turku.storage.snapshots.place import DELETING_PREFIX, SourcePlace, is_directory, move_directory

_DEPTH_LIMIT = 64
"""Levels held open at once; what lies deeper is not gathered, and is sent again."""


def gather(leftover: Path, place: SourcePlace) -> None:
    """Add the tree at ``leftover`` (nothing, when there is none) to the source's unfinished tree, the newer winning.

    Repeating it after a crash is right. Raises BackupFailed when something else than a directory is there.
    """
    if not is_directory(leftover):
        if leftover.is_symlink() or leftover.exists():
            raise BackupFailed(f"{leftover} is not a directory", hint="move it away; the source is backed up there")
        return
    if subvolume.is_subvolume(leftover):
        subvolume.set_read_only(leftover, read_only=False)
    if is_directory(place.unfinished) and place.unfinished.lstat().st_dev != leftover.lstat().st_dev:
        # A subvolume and a plain directory, of two modes: nothing can be moved from the one to the other.
        durable.rename(place.unfinished, _doomed(place))
    if not is_directory(place.unfinished):
        move_directory(leftover, place.unfinished)
        return
    newer = tree_removal.open_directory(leftover)
    older = tree_removal.open_directory(place.unfinished)
    try:
        _merge(newer, older, depth=1)
    finally:
        os.close(newer)
        os.close(older)
    # What is left are directories, and files that both trees have.
    durable.rename(leftover, _doomed(place))


def _doomed(place: SourcePlace) -> Path:
    return place.snapshots_dir / f"{DELETING_PREFIX}unfinished-{secrets.token_hex(4)}"


def _merge(newer: int, older: int, *, depth: int) -> None:
    with os.scandir(newer) as entries:
        # A list: moving entries of a directory that is being read may show some twice or never.
        names = [(os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_a_directory in names:
        if is_a_directory:
            _merge_directory(name, newer, older, depth=depth)
        else:
            try:
                os.rename(name, name, src_dir_fd=newer, dst_dir_fd=older)
            except IsADirectoryError:
                # A directory became a file on the machine in between: the older one is of no use.
                continue


def _merge_directory(name: bytes, newer: int, older: int, *, depth: int) -> None:
    inner_newer = tree_removal.open_directory(name, parent=newer)
    try:
        try:
            os.rename(name, name, src_dir_fd=newer, dst_dir_fd=older)
        except NotADirectoryError:
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        else:
            return
        if depth < _DEPTH_LIMIT:
            inner_older = tree_removal.open_directory(name, parent=older)
            try:
                _merge(inner_newer, inner_older, depth=depth + 1)
            finally:
                os.close(inner_older)
    finally:
        os.close(inner_newer)
