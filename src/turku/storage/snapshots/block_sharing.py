"""Modes ``reflink`` and ``btrfs``, whose file system shares blocks, and the trees that ``rsync --inplace`` writes to.

The staging directory begins as a copy of the base. It shares only blocks with a snapshot, so a failed or killed run
leaves it to the next one.

If two names share a file and the machine no longer has them as one, rsync would write through one name to the other.
Blocks of a changed file should be compared in the block size of the disk. rsync must not make holes in existing files,
because it makes one for each few zeros, in unchanged blocks as well.
"""

import os
import secrets
import stat
from abc import abstractmethod
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from turku.core.filesystem import holes
from turku.core.filesystem.directory_tree import READ_FLAGS, DirectoryTree
from turku.errors import BackupFailed
from turku.policy import snapshot_mode
from turku.storage.fs import clone, disk_usage, subvolume
from turku.storage.fs import tree as fs
from turku.storage.rsync.request import Workspace
from turku.storage.snapshots.mode import BuiltTree

SMALLEST_BLOCK_BYTES = 4096
LARGEST_BLOCK_BYTES = 131072
"""The largest block size of rsync."""
LARGE_FILE_BYTES = 256 * 1024
"""Smaller files need not share blocks when they change."""
_LARGE_FILES_LIMIT = 100_000
"""The number of paths that are kept in memory."""
_BLOCKS_LIMIT = 1 << 20
"""rsync holds 40 bytes of memory per block of a file, on the machine."""


def block_bytes(largest_file_bytes: int) -> int:
    """Return the block size for files up to this size, a power of two."""
    size = SMALLEST_BLOCK_BYTES
    while size < LARGEST_BLOCK_BYTES and largest_file_bytes > size * _BLOCKS_LIMIT:
        size *= 2
    return size


def prepare(directory: Path) -> int:
    """Give each name in the tree a file of its own, and return the size of the largest file in bytes."""
    largest = 0
    shared: list[tuple[bytes, bytes]] = []
    with DirectoryTree(directory) as opened:
        for each in opened.walk():
            if each.is_file:
                largest = max(largest, each.status.st_size)
                if each.status.st_nlink > 1:
                    shared.append((each.path, each.name))
        for path, name in shared:
            _unshare(opened.directory(path), name)
    return largest


def large_files(directory: Path, paths: Iterable[bytes]) -> list[bytes]:
    """Return the paths, relative to the directory, that are large files."""
    found: list[bytes] = []
    with DirectoryTree(directory) as tree:
        for path in paths:
            try:
                status = tree.status(path)
            except OSError:
                # The entry is new, or changed its kind.
                continue
            if stat.S_ISREG(status.st_mode) and status.st_size >= LARGE_FILE_BYTES:
                found.append(path)
                if len(found) == _LARGE_FILES_LIMIT:
                    break
    return found


def punch_holes(directory: Path, paths: Iterable[bytes]) -> None:
    """Make holes in place of zeros in these files, and keep their times. Failures leave a file as it is."""
    with DirectoryTree(directory) as tree:
        for path in paths:
            with suppress(OSError):
                descriptor = tree.open_file(path, READ_FLAGS | os.O_RDWR)
                try:
                    status = os.fstat(descriptor)
                    if holes.punch_zeros(descriptor, disk_usage.unshared_spans(descriptor)):
                        os.utime(descriptor, ns=(status.st_atime_ns, status.st_mtime_ns))
                finally:
                    os.close(descriptor)


def _unshare(directory: int, name: bytes) -> None:
    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if status.st_nlink == 1 or not stat.S_ISREG(status.st_mode):
        return
    # rsync removes a leftover of this name, because the machine has no such file.
    temporary = b".turku-own-" + secrets.token_hex(6).encode()
    try:
        clone.clone_within(directory, name, temporary)
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except OSError:
        # A file that cannot be cloned is transferred again.
        with suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=directory)
        os.unlink(name, dir_fd=directory)


class BlockSharing(BuiltTree):
    """The common sequence of preparation. Each mode makes the staging directory in its own way."""

    shares_blocks = True

    def prepare(self, base: str | None) -> Workspace:
        self._refuse_if_impossible()
        place = self.place
        fs.make_directory(place.snapshots_dir)
        self.tidy()
        self._mark_for_deletion(place.cloning, place.assembling)
        former = self._former_trees()
        is_resumed = self._can_resume()
        if not is_resumed:
            self._mark_for_deletion(place.staging)
            beginning = place.tree(base) if base is not None else next(iter(former), None)
            self._make_staging(beginning)
        largest_file_bytes = prepare(place.staging)
        return Workspace(
            place.staging,
            tuple(former),
            writes_in_place=True,
            block_bytes=block_bytes(largest_file_bytes),
            is_resumed=is_resumed,
        )

    @abstractmethod
    def _refuse_if_impossible(self) -> None:
        """Raise BackupFailed if the file system does not support the mode."""

    @abstractmethod
    def _can_resume(self) -> bool:
        """Return True if the staging directory exists and this mode made it."""

    @abstractmethod
    def _make_staging(self, beginning: Path | None) -> None:
        """Make the staging directory atomically, as a copy of the tree ``beginning`` that shares its blocks."""


class Reflink(BlockSharing):
    """The staging directory is a tree of clones of the base, and becomes the next snapshot.

    It costs inodes and the time to make them, so it suits large files that change a little (XFS, btrfs).

    Its mark distinguishes it from the staging directory of another mode, which has only a part of the source.
    """

    name = snapshot_mode.REFLINK

    def _refuse_if_impossible(self) -> None:
        if not clone.can_clone(self.place.machine_dir):
            raise BackupFailed(
                f"snapshot_mode: reflink, but the file system of {self.place.machine_dir} cannot clone files",
                hint="XFS (mkfs.xfs -m reflink=1) and btrfs can; 'auto' takes what the file system can do",
            )

    def _can_resume(self) -> bool:
        return self.place.is_marked_in_place(self.place.staging)

    def _make_staging(self, beginning: Path | None) -> None:
        place = self.place
        fs.make_directory(place.cloning)
        clone.keep_changes_small(place.cloning)
        if beginning is not None:
            clone.clone_tree(beginning, place.cloning)
        place.mark_in_place(place.cloning)
        fs.move_directory(place.cloning, place.staging)


class Btrfs(BlockSharing):
    """The staging directory is a writable snapshot of the base. Sealed read-only, it becomes the next snapshot."""

    name = snapshot_mode.BTRFS

    def _refuse_if_impossible(self) -> None:
        if not subvolume.is_btrfs(self.place.machine_dir):
            raise BackupFailed(
                f"snapshot_mode: btrfs, but {self.place.machine_dir} does not lie on btrfs",
                hint="'auto' takes what the file system can do",
            )

    def _can_resume(self) -> bool:
        if not subvolume.is_subvolume(self.place.staging):
            return False
        # A run may have been killed between sealing and naming it.
        subvolume.set_read_only(self.place.staging, read_only=False)
        return True

    def _make_staging(self, beginning: Path | None) -> None:
        place = self.place
        if beginning is None:
            subvolume.create(place.staging)
        elif subvolume.is_subvolume(beginning):
            subvolume.snapshot(beginning, place.staging)
        else:
            # The base was made by another mode.
            subvolume.create(place.cloning)
            clone.clone_tree(beginning, place.cloning)
            fs.rename(place.cloning, place.staging)

    def _seal(self, tree: Path) -> None:
        subvolume.set_read_only(tree, read_only=True)
