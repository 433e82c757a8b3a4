"""The snapshot that somebody means, as a tree that can be read: by name, by moment, or the latest."""

from __future__ import annotations

import difflib
import itertools
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from turku.core.clock import SYSTEM_CLOCK, Clock
from turku.core.log import one_line
from turku.errors import NotInHistory
from turku.policy import names
from turku.protocol.restore_messages import SnapshotChoice
from turku.storage import catalog, history, volumes
from turku.storage.configuration import Storage
from turku.storage.fs import tree as fs
from turku.storage.fs.tree import Tree, joined
from turku.storage.permit import Permitted
from turku.storage.snapshots.place import LATEST, SourcePlace

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

    @property
    def is_snapshot(self) -> bool:
        return self.name != CURRENT


def place_of(configuration: Storage, permitted: Permitted) -> SourcePlace:
    """Where the source lies. Raises NotInHistory where nothing of the machine or the source does, NoVolume."""
    directory = volumes.existing_directory(configuration, permitted.machine)
    if directory is None:
        raise NotInHistory(f"storage {configuration.name} has nothing of this machine")
    place = SourcePlace(directory, permitted.source)
    if not (fs.is_directory(place.snapshots_dir) or fs.is_directory(place.working_tree)):
        raise NotInHistory(f"storage {configuration.name} has nothing of source {permitted.source}")
    return place


def choose(
    configuration: Storage, place: SourcePlace, choice: SnapshotChoice, *, clock: Clock = SYSTEM_CLOCK
) -> KeptTree:
    """The tree that is meant. Raises NotInHistory, PolicyError for a moment that is not understood."""
    snapshots = history.stored_snapshots(place, configuration.zone)
    if choice.name in (None, LATEST, CURRENT) and choice.at is None and not snapshots:
        if fs.is_directory(place.working_tree):
            return KeptTree(place, CURRENT, place.working_tree, None)
        raise NotInHistory(f"source {place.source} has no snapshot yet")
    by_name = {each.name: each for each in snapshots}
    chosen = catalog.choose(
        snapshots, name=_whole_name(place, by_name, choice.name), at=choice.at, now=clock.now(), zone=configuration.zone
    )
    found = by_name[chosen]
    return KeptTree(place, found.name, found.path, found.moment)


def _whole_name(place: SourcePlace, known: Collection[str], name: str | None) -> str | None:
    """The name in whole: what tells one from the others is enough, as ``20261124-084122``."""
    if name is None or name in known:
        return name
    ending = [each for each in known if each.removeprefix(f"{place.source}_").startswith(name)]
    return ending[0] if len(ending) == 1 and name else name


def status_of(kept: KeptTree, path: bytes) -> os.stat_result:
    """What is at a path (already checked by ``names.path_inside``). Raises NotInHistory with names like it."""
    with Tree(kept.path) as tree:
        try:
            return tree.status(path)
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:
            raise NotInHistory(f"{shown(path)} cannot be read in {kept.name}: {error.strerror}") from error
    raise NotInHistory(
        f"{shown(path)} is not in {kept.name}", hint=_near_paths(kept.path, path) or "turku-agent files shows what is"
    )


def checked_paths(kept: KeptTree, paths: Sequence[bytes], permitted: Permitted) -> list[bytes]:
    """The paths, each lawful, permitted and there, none within another one; none at all for the whole tree.

    Raises PolicyError, NotInHistory.
    """
    lawful = sorted({names.path_inside(path) for path in paths} or {b""})
    for path in lawful:
        permitted.require_path(path)
    if b"" in lawful:
        return []
    found: list[bytes] = []
    for path in lawful:
        status_of(kept, path)
        if not any(path.startswith(other + b"/") for other in found):
            found.append(path)
    return found


def _near_paths(root: Path, path: bytes) -> str:
    """Return names like the first part of the path that is not there."""
    inside = b""
    with Tree(root) as tree:
        for part in path.split(b"/"):
            directory = tree.find_directory(joined(inside, part))
            if directory is None:
                break
            inside = joined(inside, part)
        with os.scandir(tree.directory(inside)) as entries:
            siblings = [entry.name for entry in itertools.islice(entries, _SIBLINGS_LIMIT)]
    near = difflib.get_close_matches(os.fsdecode(part), siblings, n=_NEAR_NAMES)
    return f"there is {', '.join(shown(joined(inside, os.fsencode(name))) for name in near)}" if near else ""


def shown(path: bytes) -> str:
    """The path as people read it."""
    return one_line(path)
