"""Snapshot modes: one class per mode behind one small interface (mode.py), one conformance suite for all of them."""

from __future__ import annotations

from turku.storage.snapshots.in_place import InPlace
from turku.storage.snapshots.link_dest import LinkDest
from turku.storage.snapshots.mode import SnapshotMode, Workspace

MODES: dict[str, type[SnapshotMode]] = {mode.name: mode for mode in (LinkDest, InPlace)}
DEFAULT_MODE = LinkDest.name

__all__ = ["DEFAULT_MODE", "MODES", "SnapshotMode", "Workspace"]
