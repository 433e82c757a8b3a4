"""Snapshot modes: one class for each mode behind one interface (``mode.py``), and the assembly of new trees."""

from turku.storage.snapshots.block_sharing import Btrfs, Reflink
from turku.storage.snapshots.mode import InPlace, LinkDest, SnapshotMode

MODES: dict[str, type[SnapshotMode]] = {mode.name: mode for mode in (LinkDest, InPlace, Btrfs, Reflink)}

__all__ = ["MODES", "SnapshotMode"]
