"""A snapshot's files, and the paths in them that somebody means."""

from __future__ import annotations

import difflib
import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from turku.core.directory_tree import Tree, joined
from turku.core.log import one_line
from turku.errors import NotInHistory
from turku.policy import names
from turku.storage.catalog import Scope
from turku.storage.snapshots.notes import NO_NOTES, Notes
from turku.storage.snapshots.place import SourcePlace

CURRENT = "current"
"""What stands for a snapshot of a source without history: its working tree, as the last run left it."""
_NEAR_NAMES = 3
_SIBLINGS_LIMIT = 20_000


@dataclass(frozen=True)
class KeptTree:
    """A snapshot's files."""

    place: SourcePlace
    name: str
    path: Path
    moment: datetime | None
    notes: Notes = NO_NOTES
    remarks: tuple[str, ...] = ()
    """Sentences on why it may not be what somebody hopes for: it is suspicious, or its date is in doubt."""

    @property
    def is_snapshot(self) -> bool:
        return self.name != CURRENT


def checked_paths(kept: KeptTree, tree: Tree, paths: Sequence[bytes], scope: Scope) -> tuple[bytes, ...]:
    """Return the paths, each lawful, in scope and there, none within another one.

    Empty is for all of the tree: where it was asked for, and all of it is in scope.
    Raises PolicyError, NotInHistory.
    """
    lawful = sorted({names.path_inside(path) for path in paths} or {b""})
    if not scope.has_path(lawful[0]) and lawful[0] == b"":
        raise NotInHistory(
            f"of {kept.name} there are some paths here, and not all of it", hint="name the paths that were approved"
        )
    if b"" in lawful:
        return ()
    found: list[bytes] = []
    for path in lawful:
        _require(kept, tree, path, scope)
        if not any(path.startswith(other + b"/") for other in found):
            found.append(path)
    return tuple(found)


def _require(kept: KeptTree, tree: Tree, path: bytes, scope: Scope) -> None:
    """Raise NotInHistory, with names like it, where the path is not there or not in scope."""
    hint = "turku-agent files shows what is"
    if scope.has_path(path):
        try:
            tree.status(path)
        except (FileNotFoundError, NotADirectoryError):
            hint = _near_paths(tree, path, scope) or hint
        except OSError as error:
            raise NotInHistory(f"{shown(path)} cannot be read in {kept.name}: {error.strerror}") from error
        else:
            return
    raise NotInHistory(f"{shown(path)} is not in {kept.name}", hint=hint)


def _near_paths(tree: Tree, path: bytes, scope: Scope) -> str:
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
