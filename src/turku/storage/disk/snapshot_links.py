"""Snapshots that are links: a source that did not change has a further snapshot, and no further tree.

``<snapshot>`` is then a symbolic link to the name of the snapshot, in the same directory, that has the tree; its
``.json`` is its own. When that snapshot leaves history, the tree is handed over to the newest of its links. Killed at
any step, every snapshot still leads to its tree (``SourcePlace.tree``), and ``tidy`` goes on.
"""

from __future__ import annotations

import logging

from turku.storage.disk.source_directory import DELETING_PREFIX, PROMOTING_PREFIX, RECORD_SUFFIX, SourceDirectory
from turku.storage.fs import tree as fs

_LOG = logging.getLogger(__name__)


def link(place: SourceDirectory, name: str, base: str) -> None:
    """Let the new snapshot ``name`` be what the snapshot ``base`` is."""
    fs.write_symbolic_link(place.snapshot(name), place.tree(base).name)


def links_to(place: SourceDirectory, name: str) -> list[str]:
    """The links to an entry, newest first; those in the trash come after those in history."""
    found = [
        entry
        for entry in fs.names(place.snapshots_dir)
        if not entry.startswith(DELETING_PREFIX) and place.link_target(entry) == name
    ]
    return sorted(found, key=lambda each: (not each.startswith("."), each), reverse=True)


def hand_over(place: SourceDirectory, name: str, *, heir: str | None = None) -> None:
    """Let no other snapshot depend on the entry ``name``; where one did, it is a link to that one afterwards.

    ``heir`` is the one that gets the tree, by default the newest.
    """
    links = links_to(place, name)
    target = place.link_target(name)
    if target is not None:
        # As a run leaves them that was killed below.
        for each in links:
            fs.write_symbolic_link(place.snapshot(each), target)
        return
    if not links:
        return
    heir = heir or links[0]
    for each in links:
        if each != heir:
            fs.write_symbolic_link(place.snapshot(each), heir)
    promoting = place.snapshot(f"{PROMOTING_PREFIX}{heir}")
    fs.rename(place.snapshot(name), promoting)
    fs.write_symbolic_link(place.snapshot(name), heir)
    _promote(place, heir)


def take_from_hidden(place: SourceDirectory, name: str) -> None:
    """Give the snapshot its tree where that has a hidden name, as in the trash, which then is a link to it."""
    target = place.link_target(name)
    if target is not None and target.startswith(".") and fs.is_directory(place.snapshot(target)):
        hand_over(place, target, heir=name)


def tidy(place: SourceDirectory) -> None:
    """Finish what was killed, and repair or remove links whose tree somebody else renamed or removed."""
    for entry in fs.names(place.snapshots_dir):
        if entry.startswith(PROMOTING_PREFIX):
            _promote(place, entry.removeprefix(PROMOTING_PREFIX))
    for entry in fs.names(place.snapshots_dir):
        target = None if entry.startswith(DELETING_PREFIX) else place.link_target(entry)
        if target is None or fs.is_directory(place.snapshot(target)):
            continue
        tree = place.tree(entry)
        if fs.is_directory(tree):
            fs.write_symbolic_link(place.snapshot(entry), tree.name)
        elif _is_ours(place, entry):
            _LOG.warning(
                "%s: %s is gone: its files were those of %s, which another program removed",
                place.source,
                entry,
                target,
            )
            fs.unlink(place.snapshot(entry))
            fs.unlink(place.record_path(entry))


def _promote(place: SourceDirectory, heir: str) -> None:
    promoting = place.snapshot(f"{PROMOTING_PREFIX}{heir}")
    if not fs.is_directory(promoting) or fs.is_directory(place.snapshot(heir)):
        return
    fs.unlink(place.snapshot(heir))
    fs.rename(promoting, place.snapshot(heir))


def _is_ours(place: SourceDirectory, name: str) -> bool:
    return fs.is_file(place.record_path(name)) and not name.endswith(RECORD_SUFFIX)
