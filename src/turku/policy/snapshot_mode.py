"""The names of snapshot modes, and the rule by which one results for a source (configuration reference).

Agent, coordinator and storage ask this module. The storage alone settles ``auto``, as it knows its file system.
"""

from collections.abc import Callable, Sequence
from typing import Final

LINK_DEST: Final = "link-dest"
NONE: Final = "none"
"""The mode without history."""
BTRFS: Final = "btrfs"
REFLINK: Final = "reflink"
AUTO: Final = "auto"
"""The choice by the storage's file system."""
NAMES: Final = (LINK_DEST, NONE, BTRFS, REFLINK, AUTO)
"""Every name that a configuration may have."""
DEFAULT: Final = LINK_DEST
SHARING_BLOCKS: Final = frozenset((BTRFS, REFLINK))
"""Modes in which a changed file takes only the space of its changed blocks."""


def selected(requested: str, default: str, *, has_large_files: bool) -> str:
    """Return the mode for a source: its own, else ``none`` for large files, else the storage's default.

    Large files keep history where the default shares their blocks, and where it is ``auto``, which decides for itself.
    """
    if not requested and has_large_files and default != AUTO and default not in SHARING_BLOCKS:
        return NONE
    return requested or default


def settled(
    *, has_large_files: bool, allowed: Sequence[str], is_btrfs: Callable[[], bool], can_clone: Callable[[], bool]
) -> str:
    """Return the mode that ``auto`` stands for on one file system.

    ``allowed`` are the modes that the operator allows at the coordinator, empty for any. ``auto`` among them allows
    every mode that keeps history.
    """
    if is_btrfs():
        best = BTRFS
    elif not has_large_files:
        # Cloning takes an inode for each file, and takes longer.
        best = LINK_DEST
    elif can_clone():
        best = REFLINK
    else:
        best = NONE
    is_permitted = is_allowed(best, allowed) or (AUTO in allowed and best != NONE)
    return best if is_permitted else DEFAULT


def weakest(requested: str, *, has_large_files: bool) -> str:
    """Return the mode that keeps least of those that may result on any storage. Empty for the storage's default.

    A storage whose file system cannot share blocks keeps no history of large files in mode ``auto`` either.
    """
    return NONE if has_large_files and requested in ("", AUTO) else requested


def is_allowed(name: str, allowed: Sequence[str]) -> bool:
    """Return True when the operator allows the mode. No ``allowed`` mode stands for any."""
    return not allowed or name in allowed
