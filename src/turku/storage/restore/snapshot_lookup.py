"""A snapshot's files, and the paths in them that somebody means."""

from __future__ import annotations

import difflib
import itertools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from turku.core.filesystem.directory_tree import DirectoryTree
from turku.core.log import one_line
from turku.core.paths import is_within, joined
from turku.errors import NotInHistory
from turku.policy import names
from turku.storage.catalog import Scope
from turku.storage.disk.snapshot_notes import NO_NOTES, Notes
from turku.storage.disk.source_directory import SourceDirectory

CURRENT = "current"
"""What stands for a snapshot of a source without history: its working tree, as the last run left it."""
UNFINISHED = "unfinished"
"""What stands for a snapshot of a source of which no backup was finished: what its runs have brought so far."""
_NEAR_NAMES = 3
_SIBLINGS_LIMIT = 20_000


@dataclass(frozen=True)
class SnapshotTree:
    """A snapshot's files."""

    place: SourceDirectory
    name: str
    path: Path
    moment: datetime | None
    notes: Notes = NO_NOTES
    remarks: tuple[str, ...] = ()
    """Sentences on why it may not be what somebody hopes for: it is suspicious, or its date is in doubt."""

    @property
    def is_snapshot(self) -> bool:
        return self.name not in (CURRENT, UNFINISHED)


@dataclass(frozen=True)
class CheckedPaths:
    """Paths that somebody asked for, none within another one. Neither of both is for all of the tree."""

    there: tuple[bytes, ...] = ()
    lost: tuple[bytes, ...] = ()
    """Those that the catalog lists and that the tree does not have."""


def checked_paths(
    kept: SnapshotTree,
    tree: DirectoryTree,
    paths: Sequence[bytes],
    scope: Scope,
    *,
    is_recorded: Callable[[bytes], bool],
) -> CheckedPaths:
    """Return the paths, each lawful, in scope, and there or at least recorded in the catalog.

    None is for all of the tree: where it was asked for, and all of it is in scope.
    Raises InvalidValue, NotInHistory: also where no path is there.
    """
    lawful = sorted({names.path_inside(path) for path in paths} or {b""})
    if not scope.has_path(lawful[0]) and lawful[0] == b"":
        raise NotInHistory(
            f"of {kept.name} there are some paths here, and not all of it", hint="name the paths that were approved"
        )
    if b"" in lawful:
        return CheckedPaths()
    found: list[bytes] = []
    lost: list[bytes] = []
    for path in lawful:
        is_there = _is_there(kept, tree, path, scope, is_recorded)
        if not any(is_within(path, other) for other in (*found, *lost)):
            (found if is_there else lost).append(path)
    if not found:
        raise NotInHistory(
            f"{shown(lost[0])} is lost: the catalog lists it in {kept.name}, and the storage does not have it any more",
            hint="turku-agent versions shows other snapshots that have it",
        )
    return CheckedPaths(tuple(found), tuple(lost))


def _is_there(
    kept: SnapshotTree, tree: DirectoryTree, path: bytes, scope: Scope, is_recorded: Callable[[bytes], bool]
) -> bool:
    """Return False where the catalog alone has the path.

    Raises NotInHistory, with names like it, where the path is in neither of both, or not in scope.
    """
    hint = "turku-agent ls shows what is"
    if scope.has_path(path):
        try:
            tree.status(path)
        except (FileNotFoundError, NotADirectoryError):
            if is_recorded(path):
                return False
            hint = _near_paths(tree, path, scope) or hint
        except OSError as error:
            raise NotInHistory(f"{shown(path)} cannot be read in {kept.name}: {error.strerror}") from error
        else:
            return True
    raise NotInHistory(f"{shown(path)} is not in {kept.name}", hint=hint)


def _near_paths(tree: DirectoryTree, path: bytes, scope: Scope) -> str:
    """Return names like the first part of the path that is not there."""
    inside = b""
    for part in path.split(b"/"):
        directory = tree.find_directory(joined(inside, part))
        if directory is None:
            break
        inside = joined(inside, part)
    with os.scandir(tree.directory(inside)) as entries:
        siblings = [entry.name for entry in itertools.islice(entries, _SIBLINGS_LIMIT)]
    siblings = [name for name in siblings if scope.has_path(joined(inside, os.fsencode(name)))]
    near = difflib.get_close_matches(os.fsdecode(part), siblings, n=_NEAR_NAMES)
    return f"there is {', '.join(shown(joined(inside, os.fsencode(name))) for name in near)}" if near else ""


def shown(path: bytes) -> str:
    """Return the path as people read it."""
    return one_line(path)
