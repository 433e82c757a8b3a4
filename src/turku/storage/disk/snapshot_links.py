"""Snapshots that are symbolic links: an unchanged source gets a further snapshot and no further tree.

``<snapshot>`` is then a link to the name of the snapshot, in the same directory, that has the tree. Its ``.json`` is
its own. When the snapshot with the tree leaves history, the tree is handed over to its newest link. If the program is
killed at any step, every snapshot still leads to its tree (``SourceDirectory.tree``), and ``tidy`` goes on.
"""

import logging

from turku.storage.disk.source_directory import DELETING_PREFIX, PROMOTING_PREFIX, RECORD_SUFFIX, SourceDirectory
from turku.storage.fs import tree as fs

_LOG = logging.getLogger(__name__)


def link(place: SourceDirectory, name: str, base: str) -> None:
    """Create the snapshot ``name`` as a link to the tree of the snapshot ``base``."""
    fs.write_symbolic_link(place.snapshot(name), place.tree(base).name)


def links_to(place: SourceDirectory, name: str) -> list[str]:
    """Return the links to an entry, newest first. Links in the trash come after those in history."""
    found = [
        entry
        for entry in fs.names(place.snapshots_dir)
        if not entry.startswith(DELETING_PREFIX) and place.link_target(entry) == name
    ]
    return sorted(found, key=lambda each: (not each.startswith("."), each), reverse=True)


def hand_over(place: SourceDirectory, name: str, *, heir: str | None = None) -> None:
    """Detach all snapshots that depend on the entry ``name``. It becomes a link itself if there was one.

    ``heir`` is the snapshot that gets the tree, by default the newest.
    """
    links = links_to(place, name)
    target = place.link_target(name)
    if target is not None:
        # A run that was killed in the steps below leaves such links.
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
    """Move the tree of the snapshot to it if the tree has a hidden name, as in the trash.

    The hidden entry becomes a link to the snapshot.
    """
    target = place.link_target(name)
    if target is not None and target.startswith(".") and fs.is_directory(place.snapshot(target)):
        hand_over(place, target, heir=name)


def tidy(place: SourceDirectory) -> None:
    """Finish what a killed run began, and repair or remove links whose tree another program renamed or removed."""
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
                "%s: %s is gone: its files were those of %s, which another program removed", place.source, entry, target
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
