"""Basis files: placeholders in the staging directory that keep rsync from sending files that the target already has.

rsync skips a file that has the same size and modification time. A basis file has the size, times, mode and owners of
the file in the target. It has no content: it is one hole and takes no space. A basis file that rsync left untouched
means that the target's file stays. One that rsync replaced has arrived. A basis file shares no inode with the target,
so that a storage cannot reach the target's files through it.

A basis file must never be mistaken for a received file. It is recognised by its inode number, which is recorded before
the storage may write, and by being a single hole, because the number of a removed inode is used again. Empty files get
no basis file, as sending them costs nothing.
"""

import errno
import os
import sqlite3
import stat
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from turku.agent.restore import file_metadata
from turku.core.filesystem import directory_tree, removal
from turku.core.filesystem.directory_tree import DirectoryTree
from turku.core.filesystem.paths import joined
from turku.core.filesystem.spool import Stack
from turku.protocol.restore_messages import Settable

_SCHEMA = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
CREATE TABLE directories (id INTEGER PRIMARY KEY, path BLOB NOT NULL UNIQUE);
CREATE TABLE entries (directory INTEGER, name BLOB, inode INTEGER, PRIMARY KEY (directory, name)) WITHOUT ROWID;
CREATE TABLE shared (
    device INTEGER, inode INTEGER, path BLOB, links INTEGER, PRIMARY KEY (device, inode)
) WITHOUT ROWID;
"""
NO_INODE = 0
"""Stands in place of an inode for a name of the target that has no basis file."""


class BasisFiles:
    """The basis files of one restore. Several threads may use them once they were created."""

    def __init__(self) -> None:
        # A temporary database without a name, because a target may have any number of files.
        self._database = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        self._database.executescript(_SCHEMA)
        self._lock = threading.Lock()
        self.count = 0

    def close(self) -> None:
        """Close the database once no thread reads from it. SQLite ends the process if that happens meanwhile."""
        with self._lock:
            self._database.close()

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record basis files in the block, as one transaction."""
        self._database.execute("BEGIN")
        try:
            yield
        finally:
            self._database.execute("COMMIT")
        self._database.execute("CREATE INDEX IF NOT EXISTS inodes ON entries (inode)")

    def record(self, directory: bytes, entries: Sequence[tuple[bytes, int]]) -> None:
        """Record the names in a directory with the inodes of their basis files."""
        self._database.execute("INSERT OR IGNORE INTO directories (path) VALUES (?)", (directory,))
        [number] = self._database.execute("SELECT id FROM directories WHERE path = ?", (directory,)).fetchone()
        self._database.executemany(
            "INSERT OR IGNORE INTO entries VALUES (?, ?, ?)",
            ((number, name, _to_sqlite(inode)) for name, inode in entries),
        )
        self.count += sum(inode != NO_INODE for _name, inode in entries)

    def first_name_of(self, status: os.stat_result, path: bytes) -> bytes | None:
        """Return an earlier name of the same file, or None for its first name, which is then recorded."""
        key = (_to_sqlite(status.st_dev), _to_sqlite(status.st_ino))
        row = self._database.execute("SELECT path FROM shared WHERE device = ? AND inode = ?", key).fetchone()
        if row is None:
            self._database.execute("INSERT INTO shared VALUES (?, ?, ?, ?)", (*key, path, status.st_nlink))
        return None if row is None else row[0]

    def link_count(self, status: os.stat_result) -> int:
        """Return the number of names that a file of the target has, or had when it got its basis file.

        The larger number counts, because names are replaced one after the other while files are placed.
        """
        key = (_to_sqlite(status.st_dev), _to_sqlite(status.st_ino))
        statement = "SELECT links FROM shared WHERE device = ? AND inode = ?"
        recorded: list[int] = [links for (links,) in self._rows(statement, key)]
        return max([status.st_nlink, *recorded])

    def inodes_in(self, directory: bytes) -> dict[bytes, int]:
        """Return the names in a directory of the target with the inodes of their basis files, or 0 for none."""
        statement = "SELECT name, inode FROM entries JOIN directories ON id = directory WHERE path = ?"
        return {name: _from_sqlite(inode) for name, inode in self._rows(statement, (directory,))}

    def inode_at(self, path: bytes) -> int | None:
        """Return the inode of the basis file at a path, 0 for an entry without one, or None where no entry was."""
        directory, _slash, name = path.rpartition(b"/")
        statement = "SELECT inode FROM entries JOIN directories ON id = directory WHERE path = ? AND name = ?"
        for (inode,) in self._rows(statement, (directory, name)):
            return _from_sqlite(inode)
        return None

    def paths_of(self, inode: int) -> list[bytes]:
        """Return the paths of the target that have a basis file with this inode."""
        if not self.count or inode == NO_INODE:
            return []
        statement = "SELECT path, name FROM entries JOIN directories ON id = directory WHERE inode = ?"
        return [joined(directory, name) for directory, name in self._rows(statement, (_to_sqlite(inode),))]

    def paths_linked_to(self, tree: int, path: bytes, found: os.stat_result) -> list[bytes]:
        """Return the target's paths that the file at ``path`` of the staging directory is a basis file of.

        The list is empty for a received file. rsync may give a basis file further names where it finds hard links. The
        name that the basis file was created for is then one of them. If that name has another inode by now, the inode
        number was used again for another file.
        """
        if not stat.S_ISREG(found.st_mode) or not (found.st_nlink > 1 or found.st_blocks == 0):
            return []
        candidates = [each for each in self.paths_of(found.st_ino) if _has_inode(tree, each, found)]
        return candidates if candidates and _is_hole(tree, path) else []

    def is_basis_file(self, tree: int, path: bytes, found: os.stat_result, inode: int | None) -> bool:
        """Return True where a file of the staging directory is the basis file that was created with this inode."""
        return bool(inode) and inode == found.st_ino and stat.S_ISREG(found.st_mode) and _is_hole(tree, path)

    def open_content(self, target: int, tree: int, path: bytes) -> int:
        """Open the content that the path will have: the received file, or the target's own. Raises OSError."""
        found = directory_tree.status(tree, path)
        if found is not None and self.count:
            if self.is_basis_file(tree, path, found, self.inode_at(path)):
                return directory_tree.open_file(target, path)
            if origins := self.paths_linked_to(tree, path, found):
                return directory_tree.open_file(target, origins[0])
        return directory_tree.open_file(tree, path)

    def _rows(self, statement: str, values: tuple[object, ...]) -> list[Any]:
        with self._lock:
            return self._database.execute(statement, values).fetchall()

    def remove(self, tree: int) -> None:
        """Remove the basis files that are left, under whatever names. Raises OSError."""
        if not self.count:
            return
        with DirectoryTree(os.dup(tree)) as found:
            for entry in found.walk(skip_unreadable=False):
                if not entry.is_directory and self.paths_of(entry.status.st_ino):
                    removal.make_writable(entry.directory)
                    os.unlink(entry.name, dir_fd=entry.directory)


def _has_inode(tree: int, path: bytes, found: os.stat_result) -> bool:
    there = directory_tree.status(tree, path)
    return there is not None and there.st_ino == found.st_ino


def _to_sqlite(number: int) -> int:
    """Return the number of an inode as a signed integer for SQLite."""
    return number - 2**64 if number >= 2**63 else number


def _from_sqlite(number: int) -> int:
    return number + 2**64 if number < 0 else number


def _is_hole(root: int, path: bytes) -> bool:
    """Return True where the file has a size and no content at all."""
    descriptor = directory_tree.open_file(root, path)
    try:
        if os.fstat(descriptor).st_size == 0:
            return False
        try:
            os.lseek(descriptor, 0, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return True
            raise
        # A file system without holes stores zeros instead.
        os.lseek(descriptor, 0, os.SEEK_SET)
        while chunk := os.read(descriptor, 1024 * 1024):
            if chunk.count(0) != len(chunk):
                return False
        return True
    finally:
        os.close(descriptor)


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
                self._create_requested(path, waiting)
            while (directory := waiting.pop()) is not None:
                self._create_contents(directory, waiting)

    def _create_parents(self, path: bytes) -> None:
        """Create the directories above a path in the tree, because rsync does not create them."""
        parts = path.split(b"/")[:-1]
        for length in range(1, len(parts) + 1):
            above, _slash, name = b"/".join(parts[:length]).rpartition(b"/")
            with directory_tree.opened_directory(self.tree, above) as directory, suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=directory)

    def _create_requested(self, path: bytes, waiting: Stack) -> None:
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
            inode = NO_INODE if is_directory else self._create_file(inner, outer, path, found)
            self.basis_files.record(above, [(name, inode)])
            if is_directory and self._create_directory(inner, name) and path not in self.untouched:
                waiting.push(path)

    def _create_contents(self, path: bytes, waiting: Stack) -> None:
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
                            if self._create_directory(inner, name) and inside not in self.untouched:
                                waiting.push(inside)
                        else:
                            rows.append((name, self._create_file(inner, outer, inside, found)))
                self.basis_files.record(path, rows)
                # Last, because new entries change the time of the directory. Later ones lie deeper.
                self._copy_metadata(inner, os.fstat(outer), outer)
        finally:
            os.close(outer)

    def _create_directory(self, inner: int, name: bytes) -> bool:
        """Create a directory. Return False where an earlier run received something else of this name."""
        try:
            os.mkdir(name, 0o700, dir_fd=inner)
        except FileExistsError:
            return stat.S_ISDIR(os.stat(name, dir_fd=inner, follow_symlinks=False).st_mode)
        return True

    def _create_file(self, inner: int, outer: int, path: bytes, found: os.stat_result) -> int:
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
