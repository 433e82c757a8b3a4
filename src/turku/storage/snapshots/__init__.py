"""Snapshot modes: one class for each mode behind one interface (``mode.py``), and the assembly of new trees."""

from __future__ import annotations

from turku.storage.snapshots.btrfs import Btrfs
from turku.storage.snapshots.in_place import InPlace
from turku.storage.snapshots.link_dest import LinkDest
from turku.storage.snapshots.mode import SnapshotMode
from turku.storage.snapshots.mode_selection import choose
from turku.storage.snapshots.reflink import Reflink

MODES: dict[str, type[SnapshotMode]] = {mode.name: mode for mode in (LinkDest, InPlace, Btrfs, Reflink)}

__all__ = ["MODES", "SnapshotMode", "choose"]
