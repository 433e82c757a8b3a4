"""The tree of a snapshot, and the lookup of requested paths in it."""

import difflib
import itertools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from turku.core.filesystem.directory_tree import DirectoryTree
from turku.core.filesystem.paths import is_within, joined
from turku.core.log import one_line
from turku.errors import NotInHistory
from turku.policy import names
from turku.storage.catalog import Scope
from turku.storage.disk.snapshot_notes import NO_NOTES, Notes
from turku.storage.disk.source_directory import SourceDirectory

CURRENT = "current"
"""The name that stands for a snapshot of a source without history: its working tree after the last run."""
UNFINISHED = "unfinished"
"""The name that stands for a snapshot of a source without a finished backup: what its runs have transferred so far."""
_ELSEWHERE = "'turku-agent versions SOURCE PATH' shows the snapshots that have it; restore it with --snapshot"
_NEAR_NAMES = 3
_SIBLINGS_LIMIT = 20_000


@dataclass(frozen=True)
class SnapshotTree:
    """A snapshot with its tree."""

    place: SourceDirectory
    name: str
    path: Path
    moment: datetime | None
    notes: Notes = NO_NOTES
    remarks: tuple[str, ...] = ()
    """Sentences about reasons for doubt: it is quarantined, or its date is in doubt."""

    @property
    def is_snapshot(self) -> bool:
        return self.name not in (CURRENT, UNFINISHED)


@dataclass(frozen=True)
class CheckedPaths:
    """Requested paths, none of them inside another one. If both are empty, the whole tree was requested."""

    there: tuple[bytes, ...] = ()
    lost: tuple[bytes, ...] = ()
    """The paths that the catalog lists and the tree lacks."""


def checked_paths(
    snapshot: SnapshotTree,
    tree: DirectoryTree,
    paths: Sequence[bytes],
    scope: Scope,
    *,
    is_recorded: Callable[[bytes], bool],
) -> CheckedPaths:
    """Return the requested paths, which are valid, in scope, and in the tree or at least in the catalog.

    No path is the whole tree, if all of it is in scope. Raises InvalidValue, and NotInHistory also if none of the paths
    is in the tree.
    """
    lawful = sorted({names.path_inside(path) for path in paths} or {b""})
    if not scope.has_path(lawful[0]) and lawful[0] == b"":
        raise NotInHistory(
            f"of {snapshot.name} there are some paths here, and not all of it", hint="name the paths that were approved"
        )
    if b"" in lawful:
        return CheckedPaths()
    found: list[bytes] = []
    lost: list[bytes] = []
    for path in lawful:
        is_there = _is_there(snapshot, tree, path, scope, is_recorded)
        if not any(is_within(path, other) for other in (*found, *lost)):
            (found if is_there else lost).append(path)
    if not found:
        raise NotInHistory(
            f"{shown(lost[0])} is lost: the catalog lists it in {snapshot.name}, and the storage no longer has it",
            hint=_ELSEWHERE,
        )
    return CheckedPaths(tuple(found), tuple(lost))


def _is_there(
    snapshot: SnapshotTree, tree: DirectoryTree, path: bytes, scope: Scope, is_recorded: Callable[[bytes], bool]
) -> bool:
    """Return False if only the catalog has the path.

    Raises NotInHistory, with the way to other snapshots and similar names, if neither has it or it is not in scope.
    """
    hint = "turku-agent ls shows what is"
    if scope.has_path(path):
        try:
            tree.status(path)
        except (FileNotFoundError, NotADirectoryError):
            if is_recorded(path):
                return False
            hint = "; ".join(filter(None, (_ELSEWHERE, _near_paths(tree, path, scope))))
        except OSError as error:
            raise NotInHistory(f"{shown(path)} cannot be read in {snapshot.name}: {error.strerror}") from error
        else:
            return True
    raise NotInHistory(f"{shown(path)} is not in {snapshot.name}", hint=hint)


def _near_paths(tree: DirectoryTree, path: bytes, scope: Scope) -> str:
    """Return names similar to the first part of the path that does not exist."""
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
