"""The directory in which rsync works, as a snapshot mode prepares it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Workspace:
    """The directory that rsync writes to and the trees that it may read. It reaches nothing else of the machine."""

    directory: Path
    basis: tuple[Path, ...] = ()
    """Trees that rsync may copy from instead of asking the machine (``--copy-dest``)."""
    is_new: bool = False
    """True where the directory is empty and there is no basis."""
    writes_in_place: bool = False
    """True where rsync changes blocks of existing files. No snapshot has these files."""
    block_bytes: int | None = None
    """The size of the blocks by which rsync compares files. None leaves the choice to rsync."""
    is_resumed: bool = False
    """True where an earlier run has transferred a part of the source into the directory."""
