"""``auto``: which mode a source gets, by its volume's file system and by what the source does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from turku.storage.fs import clone, subvolume
from turku.storage.snapshots.btrfs import Btrfs
from turku.storage.snapshots.in_place import InPlace
from turku.storage.snapshots.link_dest import LinkDest
from turku.storage.snapshots.reflink import Reflink

AUTO = "auto"


def choose(machine_dir: Path, *, has_large_files: bool, allowed: Sequence[str] = ()) -> str:
    """The name of the mode for a source in the machine's directory.

    ``has_large_files``: large ones that change or are replaced. ``allowed`` are the modes that the operator allows at
    the coordinator, ``auto`` for all that keep history; none for any.
    """
    if subvolume.is_btrfs(machine_dir):
        best = Btrfs.name
    elif not has_large_files:
        # Cloning takes an inode per file, and longer.
        best = LinkDest.name
    elif clone.can_clone(machine_dir):
        best = Reflink.name
    else:
        best = InPlace.name
    is_allowed = not allowed or best in allowed or (AUTO in allowed and best != InPlace.name)
    return best if is_allowed else LinkDest.name
