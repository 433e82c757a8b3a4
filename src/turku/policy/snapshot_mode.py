"""The names of the snapshot modes, as a storage's configuration and a source may say them."""

from __future__ import annotations

from typing import Final

LINK_DEST: Final = "link-dest"
NONE: Final = "none"
BTRFS: Final = "btrfs"
REFLINK: Final = "reflink"
AUTO: Final = "auto"
"""A choice among the others, by the volume's file system and by the source."""
DEFAULT: Final = LINK_DEST
NAMES: Final = (LINK_DEST, NONE, BTRFS, REFLINK, AUTO)
