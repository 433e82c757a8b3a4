"""Creating the basis files of a restore, in one pass over the target."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from turku.agent.restore import file_metadata
from turku.agent.restore.staging.basis_files import NO_INODE, BasisFiles
from turku.core.filesystem import directory_tree
from turku.core.filesystem.paths import joined
from turku.core.filesystem.spool import Stack
from turku.protocol.restore_messages import Settable

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass
class BasisFileWriter:
    """Creates basis files in ``tree`` for the files of ``target``. Both are open directories."""

    basis_files: BasisFiles
    target: int
    tree: int
    staging_name: bytes
    """The name of the staging directory in the target."""
    shows_all: bool
    """Every entry gets a basis file, because rsync must see which names are taken."""
    differing: Collection[bytes] = ()
    """Files whose content differs from the backup's although size and time are the same."""
    untouched: Collection[bytes] = ()
    """Directories that are not entered."""
    kinds: Collection[Settable] = ()
    """The attributes that basis files get."""
    before_first: Callable[[], None] = lambda: None
    """Called before the first basis file is created."""
    _owner: tuple[int, int] = field(default_factory=lambda: (os.geteuid(), os.getegid()))

    def create(self, paths: Sequence[bytes]) -> None:
        """Create the directories of the target at and below the paths, or all, with basis files for their files.

        Entries that ``tree`` already has stay. Raises OSError.
        """
        with self.basis_files.recording(), Stack() as waiting:
            for path in paths:
                self._create_parents(path)
            for path in paths or (b"",):
                self._requested_path(path, waiting)
            while (directory := waiting.pop()) is not None:
                self._contents(directory, waiting)

    def _create_parents(self, path: bytes) -> None:
        """Create the directories above a path in the tree, because rsync does not create them."""
        parts = path.split(b"/")[:-1]
        for length in range(1, len(parts) + 1):
            above, _slash, name = b"/".join(parts[:length]).rpartition(b"/")
            with directory_tree.opened_directory(self.tree, above) as directory, suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=directory)

    def _requested_path(self, path: bytes, waiting: Stack) -> None:
        if not path:
            waiting.push(path)
            return
        above, _slash, name = path.rpartition(b"/")
        # A missing entry needs no basis file. A file in place of a directory is reported by the placement.
        with (
            suppress(FileNotFoundError, NotADirectoryError),
            directory_tree.opened_directory(self.target, above) as outer,
            directory_tree.opened_directory(self.tree, above) as inner,
        ):
            found = os.stat(name, dir_fd=outer, follow_symlinks=False)
            is_directory = stat.S_ISDIR(found.st_mode)
            inode = NO_INODE if is_directory else self._file(inner, outer, path, found)
            self.basis_files.record(above, [(name, inode)])
            if is_directory and self._directory(inner, name) and path not in self.untouched:
                waiting.push(path)

    def _contents(self, path: bytes, waiting: Stack) -> None:
        try:
            outer = directory_tree.open_directory(self.target, path)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return
        try:
            with directory_tree.opened_directory(self.tree, path) as inner:
                rows: list[tuple[bytes, int]] = []
                with os.scandir(outer) as entries:
                    for entry in entries:
                        name = os.fsencode(entry.name)
                        if not path and name == self.staging_name:
                            continue
                        inside = joined(path, name)
                        try:
                            found = entry.stat(follow_symlinks=False)
                        except FileNotFoundError:
                            continue
                        if stat.S_ISDIR(found.st_mode):
                            rows.append((name, NO_INODE))
                            if self._directory(inner, name) and inside not in self.untouched:
                                waiting.push(inside)
                        else:
                            rows.append((name, self._file(inner, outer, inside, found)))
                self.basis_files.record(path, rows)
                # Last, because new entries change the time of the directory. Later ones lie deeper.
                self._copy_metadata(inner, os.fstat(outer), outer)
        finally:
            os.close(outer)

    def _directory(self, inner: int, name: bytes) -> bool:
        """Create a directory. Return False where an earlier run received something else of this name."""
        try:
            os.mkdir(name, 0o700, dir_fd=inner)
        except FileExistsError:
            return stat.S_ISDIR(os.stat(name, dir_fd=inner, follow_symlinks=False).st_mode)
        return True

    def _file(self, inner: int, outer: int, path: bytes, found: os.stat_result) -> int:
        """Create the basis file of an entry that is not a directory, and return its inode, or 0 for none.

        Links and special files cost nothing to be sent, so they usually need none. They get one where rsync must see
        that the name is taken: with ``--delete``, and where nothing may be overwritten.
        """
        name = path.rpartition(b"/")[2]
        is_regular = stat.S_ISREG(found.st_mode) and found.st_size > 0
        if not is_regular and not self.shows_all:
            return NO_INODE
        if not self.basis_files.count:
            self.before_first()
            self.before_first = lambda: None
        if is_regular and found.st_nlink > 1 and (first := self.basis_files.first_name_of(found, path)) is not None:
            above, _slash, last = first.rpartition(b"/")
            with suppress(OSError), directory_tree.opened_directory(self.tree, above) as directory:
                os.link(last, name, src_dir_fd=directory, dst_dir_fd=inner, follow_symlinks=False)
                return os.stat(name, dir_fd=inner, follow_symlinks=False).st_ino
        try:
            descriptor = os.open(name, _CREATE, 0o600, dir_fd=inner)
        except FileExistsError:
            # An earlier run received it.
            return NO_INODE
        try:
            os.ftruncate(descriptor, found.st_size if is_regular else 1)
            way = file_metadata.proc_path(outer, name) if is_regular else None
            self._copy_metadata(descriptor, found, way, is_older=path in self.differing)
            if not is_regular:
                # Older than any file, so that rsync sends what it has for this name.
                os.utime(descriptor, ns=(0, 0))
            return os.fstat(descriptor).st_ino
        finally:
            os.close(descriptor)

    def _copy_metadata(
        self, descriptor: int, found: os.stat_result, source: int | bytes | None, *, is_older: bool = False
    ) -> None:
        if self._owner[0] == 0:
            if (found.st_uid, found.st_gid) != self._owner:
                os.fchown(descriptor, found.st_uid, found.st_gid)
        else:
            with suppress(OSError):
                os.fchown(descriptor, -1, found.st_gid)
        if source is not None and self.kinds:
            file_metadata.set_attributes(descriptor, file_metadata.read(source, self.kinds))
        os.fchmod(descriptor, stat.S_IMODE(found.st_mode))
        os.utime(descriptor, ns=(found.st_atime_ns, found.st_mtime_ns - (1 if is_older else 0)))
