"""The choice of a snapshot mode by the file system of a volume (``auto``)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from turku.policy import snapshot_mode
from turku.storage.fs import clone, subvolume


def choose(machine_dir: Path, *, has_large_files: bool, allowed: Sequence[str] = ()) -> str:
    """Return the mode that ``auto`` stands for in the machine's directory, by the rule of ``snapshot_mode.settled``."""
    return snapshot_mode.settled(
        has_large_files=has_large_files,
        allowed=allowed,
        is_btrfs=lambda: subvolume.is_btrfs(machine_dir),
        can_clone=lambda: clone.can_clone(machine_dir),
    )
