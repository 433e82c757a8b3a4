"""Assembling a new snapshot's tree from its base and from the staging directory.

rsync never writes to the tree: otherwise a machine with a lying daemon could make it change a file that other snapshots
share. Files are linked, moved and unlinked here, and never opened for writing. Each tree has directories of its own, so
these may change. Only planned paths are taken from the staging directory.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from turku.core.filesystem.directory_tree import DirectoryTree
from turku.core.filesystem.paths import is_entry_path, split
from turku.core.filesystem.spool import Stack
from turku.storage.fs import attributes, clone
from turku.storage.rsync.change_log import Change, ChangeKind
from turku.storage.snapshots.base_copy import IncrementalFailed
from turku.storage.snapshots.changeable_tree import ChangeableTree, OnDeleted, all_but


def apply(
    staging: Path,
    tree: Path,
    planned: Iterable[Change],
    on_deleted: OnDeleted,
    *,
    stays: Callable[[bytes], bool] = lambda _path: False,
) -> int:
    """Remove deleted entries from ``tree`` and move changed ones from ``staging`` into it.

    A planned entry that is not in the staging directory was deleted on the machine meanwhile, unless ``stays`` returns
    True because it could not be read. Then it stays as it was. A directory gets owner, mode, attributes and times of
    the one in ``staging``. Changed times of other directories are restored. Returns the number of new directories.
    Raises IncrementalFailed.
    """
    made = 0
    try:
        with ChangeableTree(staging) as staged, ChangeableTree(tree) as target, Stack() as directories:
            for change in planned:
                if change.link_target:
                    # The file that it links to may not be moved yet.
                    continue
                path = _inside(change.path)
                status = None if change.kind is ChangeKind.DELETED else staged.find(path)
                if status is None and change.kind is not ChangeKind.DELETED and stays(path):
                    continue
                if status is None:
                    target.remove(path, on_deleted, also_directory=change.kind is ChangeKind.DELETED)
                elif stat.S_ISDIR(status.st_mode):
                    made += target.make_directory(path, on_deleted)
                    directories.push(path)
                else:
                    _move(staged, target, path, on_deleted)
            for change in planned:
                if change.link_target:
                    target.link(_inside(change.link_target), _inside(change.path), on_deleted)
            # rsync lists a directory before its content. Inner directories come first here, because opening one may
            # change the mode of those above it for a moment.
            while (inner := directories.pop()) is not None:
                target.take_attributes(staged, inner)
    except OSError as error:
        raise IncrementalFailed(f"{error.strerror or error}: {error.filename!r}") from error
    return made


def remove(tree: Path, paths: Iterable[bytes]) -> None:
    """Remove these files from a tree that rsync is going to update."""
    with ChangeableTree(tree) as target:
        for path in paths:
            target.remove(_inside(path), lambda _path: None, also_directory=False)


def remove_created(tree: Path, created: Stack) -> None:
    """Remove the entries that a run created, the last one first, so that directories are empty by their turn."""
    with ChangeableTree(tree) as target:
        while (path := created.pop()) is not None:
            # A directory with other entries, or an entry that cannot be removed, stays.
            with suppress(OSError):
                target.remove_one(_inside(path))


def _inside(path: bytes) -> bytes:
    """Return a path of the change log as trees have it, empty for the tree itself. Raises IncrementalFailed."""
    # A machine's messages can make rsync print a line about any path.
    if path != b"." and not is_entry_path(path):
        raise IncrementalFailed("the dry run named a path outside the tree")
    return b"" if path == b"." else path


def _move(staged: ChangeableTree, target: ChangeableTree, path: bytes, on_deleted: OnDeleted) -> None:
    there = target.find(path)
    # A rename replaces anything but a directory by itself.
    if there is not None and stat.S_ISDIR(there.st_mode):
        target.remove(path, all_but(path, on_deleted), also_directory=True)
    directory, name = split(path)
    source, destination = staged.directory(directory), target.directory(directory)
    os.rename(name, name, src_dir_fd=source, dst_dir_fd=destination)


def take_from_base(base: Path, tree: Path, paths: Iterable[bytes]) -> None:
    """Add the base's entries at these paths, with their content, where ``tree`` has none. Files are shared.

    Raises IncrementalFailed.
    """
    try:
        with ChangeableTree(tree) as target, DirectoryTree(base) as old, Stack() as directories:
            for path in paths:
                _take(old, target, _inside(path), directories)
            while (inner := directories.pop()) is not None:
                source, made = old.directory(inner), target.directory(inner)
                target.leave_as(made, os.fstat(source))
                attributes.copy(os.fstat(source), source, made)
    except OSError as error:
        raise IncrementalFailed(f"{error.strerror or error}: {error.filename!r}") from error


def _take(old: DirectoryTree, target: ChangeableTree, path: bytes, directories: Stack) -> None:
    try:
        status = old.status(path)
    except (FileNotFoundError, NotADirectoryError):
        return
    waiting = [path]
    if stat.S_ISDIR(status.st_mode):
        waiting += [each.full_path for each in old.walk(path, skip_unreadable=False)]
    for each in waiting:
        if target.find(each) is not None:
            continue
        directory, name = split(each)
        found = target.find(directory)
        if found is None or not stat.S_ISDIR(found.st_mode):
            # Its parent became something else.
            continue
        if stat.S_ISDIR(old.status(each).st_mode):
            os.mkdir(name, 0o700, dir_fd=target.directory(directory))
            directories.push(each)
        else:
            clone.link_or_copy(old.directory(directory), name, target.directory(directory), name)
