"""The paths of one source on a volume (contract, "On the storage's disk"), and the hidden names beside its snapshots.

Names that begin with a dot belong to no history: neither this storage nor an existing one lists or links them, or
removes them by retention.
"""

import json
import stat
from dataclasses import dataclass
from pathlib import Path

from turku.policy import names
from turku.storage.fs import tree as fs

RECORD_SUFFIX = ".json"
LATEST = "latest"
DELETING_PREFIX = ".deleting-"
PROMOTING_PREFIX = ".promoting-"
_LINKS_LIMIT = 3


@dataclass(frozen=True)
class SourceDirectory:
    """The paths of one source of one machine. Nothing is read from the disk before a method asks for it."""

    machine_dir: Path
    source: str

    def __post_init__(self) -> None:
        # An absolute name would replace the machine's directory. Whatever was checked before, it must not pass this
        # point.
        names.source_name(self.source)

    @property
    def working_tree(self) -> Path:
        """Return the tree of a source without history, or of an existing storage."""
        return self.machine_dir / self.source

    @property
    def snapshots_dir(self) -> Path:
        return self.machine_dir / f"{self.source}.snapshots"

    @property
    def latest(self) -> Path:
        """Return the path of the symbolic link to the newest snapshot."""
        return self.snapshots_dir / LATEST

    @property
    def staging(self) -> Path:
        """Return the directory that rsync writes to.

        It shares no file with a snapshot, so a run may continue with what a failed run left there.
        """
        return self.snapshots_dir / ".staging"

    @property
    def fetch_list(self) -> Path:
        """Return the path of the list of files that rsync is to fetch."""
        return self.snapshots_dir / ".fetch-list"

    @property
    def assembling(self) -> Path:
        """Return the path of a new snapshot's tree while it is assembled from its base and the staging directory."""
        return self.snapshots_dir / ".assembling"

    @property
    def former_tree(self) -> Path:
        """Return the path of a former working tree that may share files with snapshots. The next run copies from it."""
        return self.snapshots_dir / ".former"

    @property
    def cloning(self) -> Path:
        """Return the path of a staging directory that is being cloned."""
        return self.snapshots_dir / ".cloning"

    @property
    def in_place_mark(self) -> Path:
        """Return the path of the mark of the tree that shares no file with a snapshot, and may be changed in place."""
        return self.snapshots_dir / ".in-place"

    @property
    def retention_rules(self) -> Path:
        """The file with the retention rules of the last successful run (retention_rules.py)."""
        return self.snapshots_dir / ".retention"

    @property
    def unfinished_mark(self) -> Path:
        """Return the path of the mark that no run has transferred the whole working tree yet."""
        return self.machine_dir / f".{self.source}.unfinished"

    def has_finished_tree(self) -> bool:
        """Return True if the working tree is a backup: a run of a mode without history has finished."""
        if not fs.is_directory(self.working_tree) or fs.exists(self.unfinished_mark):
            return False
        # Beside a directory of snapshots, a tree without the mark was begun by an existing storage.
        return not fs.is_directory(self.snapshots_dir) or self.is_marked_in_place(self.working_tree)

    def unfinished_tree(self) -> Path | None:
        """Return the tree of runs that did not finish, or None if there is none."""
        trees = [self.staging, *([] if self.has_finished_tree() else [self.working_tree])]
        return next((tree for tree in trees if fs.is_directory(tree)), None)

    def is_marked_in_place(self, tree: Path) -> bool:
        """Return True if the mark is about the directory ``tree``."""
        # The inode identifies it: an existing storage that takes over for a while renames the tree and makes another.
        try:
            content = json.loads(fs.read_file(self.in_place_mark, limit_bytes=4096))
        except (OSError, ValueError):
            return False
        status = fs.status(tree)
        return status is not None and stat.S_ISDIR(status.st_mode) and content == {"inode": status.st_ino}

    def mark_in_place(self, tree: Path) -> None:
        """Mark the directory ``tree`` as one that may be changed in place.

        The mark stays valid when the tree is moved.
        """
        status = fs.status(tree)
        if status is not None:
            fs.write_json(self.in_place_mark, {"inode": status.st_ino})

    def snapshot(self, name: str) -> Path:
        return self.snapshots_dir / name

    def tree(self, name: str) -> Path:
        """Return the directory that holds the snapshot's files, or ``snapshot(name)`` itself if nothing holds them.

        A snapshot of an unchanged source has another snapshot's tree (``snapshot_links``).
        """
        wanted = name
        for _ in range(_LINKS_LIMIT):
            # The name of a tree while it is getting this name.
            for path in (self.snapshot(wanted), self.snapshot(f"{PROMOTING_PREFIX}{wanted}")):
                if fs.is_directory(path):
                    return path
            target = self.link_target(wanted)
            if target is None:
                break
            wanted = target
        renamed = None if wanted == name else self._renamed(wanted)
        return renamed or self.snapshot(name)

    def _renamed(self, name: str) -> Path | None:
        """Return a directory whose name contains the name.

        A person adds ``save`` to it, to keep a snapshot for ever.
        """
        for entry in fs.names(self.snapshots_dir):
            is_renamed = name in entry if not entry.startswith(".") else entry.endswith(f"-{name}")
            if is_renamed and not entry.startswith(DELETING_PREFIX) and fs.is_directory(self.snapshot(entry)):
                return self.snapshot(entry)
        return None

    def link_target(self, name: str) -> str | None:
        """Return the name of the entry beside it that the entry ``name`` is a link to, or None for anything else."""
        target = None if name == LATEST else fs.link_target(self.snapshot(name))
        # A link that somebody else made must not lead anywhere else.
        return None if target is None or "/" in target or target in (".", "..", LATEST) else target

    def has(self, name: str) -> bool:
        """Return True if there is such an entry with files: a snapshot, or a former snapshot."""
        return fs.is_directory(self.tree(name))

    def record_path(self, name: str) -> Path:
        return self.snapshots_dir / f"{name}{RECORD_SUFFIX}"
