"""Where one source lies on a volume (contract, section 5), and the hidden names beside its snapshots.

Names that begin with a dot are nobody's history: neither this storage nor an existing one lists, prunes or links them.
"""

from __future__ import annotations

import json
import stat
from dataclasses import dataclass
from pathlib import Path

from turku.core import durable
from turku.errors import BackupFailed
from turku.policy import names

INFORMATION_SUFFIX = ".json"
LATEST = "latest"
DELETING_PREFIX = ".deleting-"
PROMOTING_PREFIX = ".promoting-"
_LINKS_LIMIT = 3


@dataclass(frozen=True)
class SourcePlace:
    """The paths of one source of one machine; nothing is looked at before it is asked for."""

    machine_dir: Path
    source: str

    def __post_init__(self) -> None:
        # An absolute name would replace the machine's directory: whatever was checked before, never beyond this point.
        names.source_name(self.source)

    @property
    def working_tree(self) -> Path:
        """What rsync writes into."""
        return self.machine_dir / self.source

    @property
    def snapshots_dir(self) -> Path:
        return self.machine_dir / f"{self.source}.snapshots"

    @property
    def latest(self) -> Path:
        """The symbolic link to the snapshot made last."""
        return self.snapshots_dir / LATEST

    @property
    def committing(self) -> Path:
        """A complete tree on its way to its name."""
        return self.snapshots_dir / ".committing"

    @property
    def unfinished(self) -> Path:
        """What failed runs had brought over; the next run takes from it instead of asking the machine again."""
        return self.snapshots_dir / ".unfinished"

    @property
    def cloning(self) -> Path:
        """A working tree that is being made from a snapshot of another mode, or by cloning."""
        return self.snapshots_dir / ".cloning"

    @property
    def in_place_mark(self) -> Path:
        """Says that the working tree shares no file with a snapshot, so that it may be changed in place."""
        return self.snapshots_dir / ".in-place"

    def is_marked_in_place(self, tree: Path) -> bool:
        """Whether the mark is about the directory ``tree``."""
        # By its inode: an existing storage that takes over for a while renames the tree away and makes another.
        try:
            content = json.loads(durable.read_regular_file(self.in_place_mark, limit_bytes=4096))
            inode = tree.lstat().st_ino
        except (OSError, ValueError):
            return False
        return is_directory(tree) and content == {"inode": inode}

    def mark_in_place(self, tree: Path) -> None:
        """Say it of the directory ``tree``, and of no other one; the mark stays true when it is moved."""
        durable.write_json(self.in_place_mark, {"inode": tree.stat().st_ino})

    def snapshot(self, name: str) -> Path:
        return self.snapshots_dir / name

    def tree(self, name: str) -> Path:
        """The directory that holds the snapshot's files; ``snapshot(name)`` itself where nothing holds them.

        That of an unchanged source's snapshot is another one's (links.py).
        """
        wanted = name
        for _ in range(_LINKS_LIMIT):
            # What a tree is called while it gets this name.
            for path in (self.snapshot(wanted), self.snapshot(f"{PROMOTING_PREFIX}{wanted}")):
                if is_directory(path):
                    return path
            target = self.link_target(wanted)
            if target is None:
                break
            wanted = target
        renamed = None if wanted == name else self._renamed(wanted)
        return renamed or self.snapshot(name)

    def _renamed(self, name: str) -> Path | None:
        """The directory that has the name in its own: a person puts ``save`` into it, to keep a snapshot for ever."""
        for entry in self.snapshots_dir.iterdir():
            is_it = name in entry.name if not entry.name.startswith(".") else entry.name.endswith(f"-{name}")
            if is_it and not entry.name.startswith(DELETING_PREFIX) and is_directory(entry):
                return entry
        return None

    def link_target(self, name: str) -> str | None:
        """The name of the entry beside it that the entry ``name`` is a link to; None for all else."""
        path = self.snapshot(name)
        if name == LATEST or not path.is_symlink():
            return None
        target = str(path.readlink())
        # One that was made by a receiver that was taken over must not lead anywhere else.
        return None if "/" in target or target in (".", "..", LATEST) else target

    def has(self, name: str) -> bool:
        """Whether there is such an entry with files in it: a snapshot, or what was one."""
        return is_directory(self.tree(name))

    def information(self, name: str) -> Path:
        return self.snapshots_dir / f"{name}{INFORMATION_SUFFIX}"


def is_directory(path: Path) -> bool:
    """Whether a directory, not a link to one, is there."""
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except FileNotFoundError:
        return False


def make_directory(path: Path) -> None:
    """Let a directory be there, readable by its owner alone where it is new.

    Raises BackupFailed when something else has its name.
    """
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        if not is_directory(path):
            raise BackupFailed(
                f"{path} is not a directory",
                hint="move it away; a source that lies elsewhere needs a volume or a bind mount there",
            ) from None
    else:
        durable.fsync_directory(path.parent)


def move_directory(source: Path, target: Path) -> None:
    """Rename a directory into another directory, its mode kept.

    The kernel wants leave to write in a directory that gets another parent; a backed-up directory may not give it.
    """
    mode = stat.S_IMODE(source.lstat().st_mode)
    if mode & stat.S_IWUSR:
        durable.rename(source, target)
        return
    source.chmod(mode | stat.S_IRWXU)
    durable.rename(source, target)
    target.chmod(mode)
