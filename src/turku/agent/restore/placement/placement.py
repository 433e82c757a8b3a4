"""Moving what arrived in the staging directory to its place in the target, entry by entry, by our own hand.

Only names that were asked for, and what is below them, are moved; of these only what the manifest names. No symbolic
link of the target is followed: what is in the way is replaced, as rsync does. A directory that the target does not have
is moved whole by one rename.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress

from turku.agent.restore.placement import file_metadata
from turku.agent.restore.placement.basis_files import BasisFiles, Overwrite
from turku.agent.restore.placement.file_metadata import EVERY_KIND
from turku.agent.restore.problems import ProblemList
from turku.agent.restore.staging_directory import StagingDirectory
from turku.core.filesystem import directory_tree, holes, posix_acl, removal
from turku.core.paths import joined, split
from turku.core.spool import Stack
from turku.errors import InvalidValue
from turku.policy import names
from turku.protocol.restore_messages import ParentDirectory, Settable, path_bytes

_ENTER, _ENTER_NEW, _LEAVE, _LEAVE_NEW, _LEAVE_AS_IT_IS = b"e", b"n", b"l", b"m", b"k"
_LEAVING = (_LEAVE, _LEAVE_NEW, _LEAVE_AS_IT_IS)
_ATTRIBUTES = struct.Struct("=IIIqIqI")
"""Mode, owner, group, two times in seconds and nanoseconds: file systems have times beyond 64 bits of nanoseconds."""
_SECOND_NS = 10**9


class Placement:
    """One restore's moving. ``run`` it once, when nobody writes into the staging directory any more."""

    def __init__(
        self,
        target: int,
        staging: StagingDirectory,
        basis_files: BasisFiles,
        *,
        is_named: Callable[[bytes], bool],
        overwrite: Overwrite,
        delete: bool,
        is_whole: bool,
        temporary: bytes,
        partial: bytes,
        untouched: Collection[bytes] = (),
        kinds: Collection[Settable] = (),
        kept: Collection[Settable] = (),
    ) -> None:
        """``untouched`` are directories of the target that stay as they are, unless something for them arrived.

        ``kinds`` are the attributes that can be set here; ``kept`` those that the snapshot has of all its files, so
        that a file which has none there is to have none here.
        """
        self.deleted = 0
        self.kept_back = 0
        """Files that arrived in a session that broke before it told what they are."""
        self.problems = ProblemList()
        self._target = target
        self._staging = staging
        self._tree = staging.tree
        self._basis_files = basis_files
        self._is_named = is_named
        self._overwrite = overwrite
        self._delete = delete and is_whole
        self._replaces_directories = delete
        # What is half written lies beside what is whole, until rsync has come to its end.
        self._moves_whole_directories = self._is_whole = is_whole
        self._temporary = temporary
        self._partial = partial
        self._untouched = frozenset(untouched)
        self._holding = {above for path in untouched for above in _and_above(path)}
        self._kinds = frozenset(kinds)
        self._removed = self._kinds & frozenset(kept)
        self._is_root = os.geteuid() == 0
        self._group = os.getegid()
        self._made: list[tuple[bytes, ParentDirectory]] = []
        self._waiting = Stack()

    def run(self, paths: Sequence[bytes], parents: Iterable[ParentDirectory]) -> None:
        """Move what arrived at and below the paths (none: everything). What cannot be moved is among the problems."""
        with self._waiting:
            if not paths:
                self._waiting.push(_ENTER_NEW if self._staging.is_target_new else _ENTER)
                self._work()
            told = _told(parents)
            for path in _outermost(paths):
                try:
                    self._asked_for(path, told)
                except OSError as error:
                    self.problems.add(path, f"could not be put in its place: {_reason(error)}")
                self._work()
            self._finish_parents()

    def _work(self) -> None:
        while (item := self._waiting.pop()) is not None:
            how = item[:1]
            if how in _LEAVING:
                path, attributes = item[1 + _ATTRIBUTES.size :], _ATTRIBUTES.unpack_from(item, 1)
                step: Callable[[], None] = lambda path=path, attributes=attributes, how=how: self._leave(  # type: ignore[misc]  # noqa: E731
                    path, attributes, how
                )
            else:
                path, is_new = item[1:], item.startswith(_ENTER_NEW)
                step = lambda path=path, is_new=is_new: self._enter(path, is_new=is_new)  # type: ignore[misc]  # noqa: E731
            try:
                step()
            except OSError as error:
                self.problems.add(path, f"could not be put in its place: {_reason(error)}")

    # --- a path that was asked for

    def _asked_for(self, path: bytes, told: dict[bytes, ParentDirectory]) -> None:
        above, _slash, name = path.rpartition(b"/")
        inner = directory_tree.open_directory(self._tree, above)
        try:
            found = _status(inner, name)
            if found is None and not (self._delete and self._basis_files.inode_at(path) is not None):
                return
            outer = self._parent(above, told)
            try:
                if found is None:
                    self._refuse_untouched(path)
                    self._remove(outer, name)
                else:
                    self._entry(inner, outer, path, found, self._basis_files.inode_at(path) or 0)
            finally:
                os.close(outer)
        finally:
            os.close(inner)

    def _parent(self, path: bytes, told: dict[bytes, ParentDirectory]) -> int:
        """Open a directory above a path in the target; those that are missing are made, as the storage told them."""
        descriptor = directory_tree.open_directory(self._target, b"")
        done = b""
        for part in path.split(b"/") if path else ():
            done = done + b"/" + part if done else part
            try:
                try:
                    inner = directory_tree.open_directory(descriptor, part)
                except FileNotFoundError:
                    os.mkdir(part, 0o700, dir_fd=descriptor)
                    inner = directory_tree.open_directory(descriptor, part)
                    posix_acl.clear(inner)
                    if (parent := told.get(done)) is not None:
                        self._made.append((done, parent))
            finally:
                os.close(descriptor)
            descriptor = inner
        return descriptor

    def _finish_parents(self) -> None:
        for path, parent in reversed(self._made):
            with suppress(OSError):
                descriptor = directory_tree.open_directory(self._target, path)
                try:
                    if self._is_root:
                        os.fchown(descriptor, parent.uid, parent.gid)
                    os.fchmod(descriptor, stat.S_IMODE(parent.mode))
                    os.utime(descriptor, ns=(parent.modified_ns, parent.modified_ns))
                finally:
                    os.close(descriptor)
                if parent.has_acl:
                    self.problems.add(path, "was made without its ACL, as it lies above what was asked for")

    # --- directories

    def _enter(self, path: bytes, *, is_new: bool) -> None:
        inner = directory_tree.open_directory(self._tree, path)
        try:
            outer = directory_tree.open_directory(self._target, path)
            try:
                # What is there stays as it is, directories too, where nothing is to be overwritten.
                is_changed = is_new or self._overwrite != "never"
                wanted = os.fstat(inner if is_changed else outer)
                attributes = _ATTRIBUTES.pack(
                    *(wanted.st_mode, wanted.st_uid, wanted.st_gid),
                    *divmod(wanted.st_atime_ns, _SECOND_NS),
                    *divmod(wanted.st_mtime_ns, _SECOND_NS),
                )
                how = _LEAVE_NEW if is_new else _LEAVE if is_changed else _LEAVE_AS_IT_IS
                self._waiting.push(how + attributes + path)
                removal.make_writable(inner)
                removal.make_writable(outer)
                self._contents(path, inner, outer)
            finally:
                os.close(outer)
        finally:
            os.close(inner)

    def _contents(self, path: bytes, inner: int, outer: int) -> None:
        had = self._basis_files.inodes_in(path)
        with os.scandir(inner) as entries:
            for entry in entries:
                name = os.fsencode(entry.name)
                inside = path + b"/" + name if path else name
                stands = had.pop(name, 0)
                if self._is_reserved(inside) or (inside in self._untouched and _is_empty(inner, name)):
                    continue
                try:
                    self._entry(inner, outer, inside, entry.stat(follow_symlinks=False), stands)
                except OSError as error:
                    self.problems.add(inside, f"could not be put in its place: {_reason(error)}")
        if self._delete:
            for name in had:
                inside = joined(path, name)
                if not (not path and name == self._staging.name) and inside not in self._untouched:
                    try:
                        self._refuse_untouched(inside)
                        self._remove(outer, name)
                    except OSError as error:
                        self.problems.add(inside, f"could not be deleted: {_reason(error)}")

    def _refuse_untouched(self, path: bytes) -> None:
        """Raise OSError for a directory that must not go, with all that is in it, as an untouched one is in it too."""
        if path in self._holding:
            raise OSError(errno.EBUSY, "another file system, or a storage's volume, is in it")

    def _leave(self, path: bytes, attributes: tuple[int, ...], how: bytes) -> None:
        mode, uid, gid, *times = attributes
        atime_ns, mtime_ns = (seconds * _SECOND_NS + rest for seconds, rest in (times[:2], times[2:]))
        directory = directory_tree.open_directory(self._target, path)
        try:
            found = os.fstat(directory)
            if self._is_root and (found.st_uid, found.st_gid) != (uid, gid):
                os.fchown(directory, uid, gid)
            elif not self._is_root and gid not in (found.st_gid, self._group):
                with suppress(OSError):
                    os.fchown(directory, -1, gid)
            if how != _LEAVE_AS_IT_IS:
                mode = self._leave_attributes(path, directory, mode, is_new=how == _LEAVE_NEW)
            if stat.S_IMODE(os.fstat(directory).st_mode) != stat.S_IMODE(mode):
                os.fchmod(directory, stat.S_IMODE(mode))
            if found.st_mtime_ns != mtime_ns:
                os.utime(directory, ns=(atime_ns, mtime_ns))
        finally:
            os.close(directory)

    def _leave_attributes(self, path: bytes, directory: int, mode: int, *, is_new: bool) -> int:
        """Give a directory the attributes that arrived; return the mode that it may have."""
        inner = directory_tree.open_directory(self._tree, path)
        try:
            wanted = file_metadata.read(inner, self._kinds)
        finally:
            os.close(inner)
        removed = EVERY_KIND if is_new else self._removed
        has = file_metadata.read(directory, EVERY_KIND if is_new else self._kinds)
        changes = file_metadata.changes_between(has, wanted, removed)
        if not changes:
            return mode
        if posix_acl.ACCESS in changes:
            # Where the list goes or comes, the group's permissions change their meaning.
            os.fchmod(directory, stat.S_IMODE(mode) & stat.S_IRWXU | stat.S_IRWXU)
        failed = file_metadata.set_attributes(directory, changes)
        self._tell_failed(path, failed)
        return file_metadata.safe_mode(mode, changes, failed)

    def _attributes(self, inner: int, outer: int, name: bytes) -> tuple[dict[str, bytes], dict[str, bytes]]:
        """Return the attributes that a name has in the target, and those that arrived for it."""
        has, wanted = (file_metadata.read(file_metadata.proc_path(each, name), self._kinds) for each in (outer, inner))
        return has, wanted

    def _tell_failed(self, path: bytes, failed: Sequence[str]) -> None:
        if failed:
            self.problems.add(path, f"is restored without {', '.join(sorted(failed))}, which cannot be set there")

    def _is_reserved(self, path: bytes) -> bool:
        """Whether it is a directory of rsync's own, for what is half written."""
        return path == self._temporary or path.rpartition(b"/")[2] == self._partial

    def _is_whole_and_named(self, path: bytes) -> bool:
        """Whether a directory that the target does not have may be moved as it is."""
        with Stack() as waiting:
            waiting.push(path)
            while (directory := waiting.pop()) is not None:
                descriptor = directory_tree.open_directory(self._tree, directory)
                try:
                    with os.scandir(descriptor) as entries:
                        for entry in entries:
                            inside = directory + b"/" + os.fsencode(entry.name)
                            if self._is_reserved(inside):
                                return False
                            if entry.is_dir(follow_symlinks=False):
                                waiting.push(inside)
                            elif not self._is_named(inside) or (
                                self._basis_files.count
                                and self._basis_files.paths_linked_to(
                                    self._tree, inside, entry.stat(follow_symlinks=False)
                                )
                            ):
                                return False
                finally:
                    os.close(descriptor)
        return True

    # --- entries

    def _entry(self, inner: int, outer: int, path: bytes, found: os.stat_result, stands: int) -> None:
        name = path.rpartition(b"/")[2]
        there = _status(outer, name)
        if stat.S_ISDIR(found.st_mode):
            self._directory(inner, outer, path, there)
        elif self._basis_files.is_basis_file(self._tree, path, found, stands):
            self._stays(inner, outer, path, found)
        elif origins := self._basis_files.paths_linked_to(self._tree, path, found):
            self._link(outer, path, there, origins)
        elif not self._is_named(path):
            if self._is_whole:
                self.problems.add(path, "arrived, and the storage's manifest does not name it: it was not restored")
            else:
                self.kept_back += 1
        elif there is None or self._may_replace(there, found):
            if there is not None and _is_alike(inner, outer, name, found, there):
                has, wanted = self._attributes(inner, outer, name)
                if not file_metadata.changes_between(has, wanted, self._removed):
                    return
            self._refuse_untouched(path)
            self._clear(outer, name, there)
            self._move(inner, outer, path, found)

    def _stays(self, inner: int, outer: int, path: bytes, found: os.stat_result) -> None:
        """Let a file that is there, and for which ``found`` stands, have all but the content that arrived."""
        there = _status(outer, path.rpartition(b"/")[2])
        # What only shows rsync that something is there has neither its size nor its attributes.
        is_same = there is not None and stat.S_ISREG(there.st_mode) and there.st_size == found.st_size
        if there is not None and is_same and self._overwrite != "never":
            self._adjust(inner, outer, path, there, found)

    def _directory(self, inner: int, outer: int, path: bytes, there: os.stat_result | None) -> None:
        name = path.rpartition(b"/")[2]
        if there is not None and not stat.S_ISDIR(there.st_mode):
            if self._overwrite == "never":
                return
            os.unlink(name, dir_fd=outer)
            there = None
        if there is None:
            if self._moves_whole_directories:
                if self._is_whole_and_named(path):
                    try:
                        self._rename(inner, outer, name)
                    except OSError as error:
                        if error.errno != errno.EXDEV:
                            raise
                    else:
                        return
                else:
                    # Looked at once: whoever made the tree must not have every level of it looked at again.
                    self._moves_whole_directories = False
            os.mkdir(name, 0o700, dir_fd=outer)
            made = directory_tree.open_directory(outer, name)
            try:
                posix_acl.clear(made)
            finally:
                os.close(made)
            self._waiting.push(_ENTER_NEW + path)
            return
        self._waiting.push(_ENTER + path)

    def _rename(self, inner: int, outer: int, name: bytes) -> None:
        """Move a directory, also where its owner, who is not root, may not write into it."""
        try:
            os.rename(name, name, src_dir_fd=inner, dst_dir_fd=outer)
        except PermissionError:
            directory = directory_tree.open_directory(inner, name)
            try:
                mode = stat.S_IMODE(os.fstat(directory).st_mode)
                removal.make_writable(directory)
                os.rename(name, name, src_dir_fd=inner, dst_dir_fd=outer)
                os.fchmod(directory, mode)
            finally:
                os.close(directory)

    def _may_replace(self, there: os.stat_result, found: os.stat_result) -> bool:
        if self._overwrite == "older" and stat.S_ISREG(there.st_mode) and stat.S_ISREG(found.st_mode):
            return there.st_mtime_ns <= found.st_mtime_ns
        return self._overwrite != "never"

    def _clear(self, outer: int, name: bytes, there: os.stat_result | None) -> None:
        """Make room for what is no directory. A directory that is not empty goes only where deleting was asked for."""
        if there is None or not stat.S_ISDIR(there.st_mode):
            return
        if self._replaces_directories:
            removal.remove(outer, name)
        else:
            os.rmdir(name, dir_fd=outer)

    def _remove(self, outer: int, name: bytes) -> None:
        self.deleted += removal.remove(outer, name)

    # --- what is there already

    def _link(self, outer: int, path: bytes, there: os.stat_result | None, origins: Sequence[bytes]) -> None:
        """rsync found that the path is another name of a file that is there: make it one."""
        name = path.rpartition(b"/")[2]
        for other in origins:
            # Before it has one name more: names that it has elsewhere are told by their number.
            self._origin_stays(other)
            origin = directory_tree.status(self._target, other)
            if origin is None or not stat.S_ISREG(origin.st_mode):
                continue
            if there is not None and (there.st_dev, there.st_ino) == (origin.st_dev, origin.st_ino):
                return
            if there is not None and not self._may_replace(there, origin):
                return
            above, _slash, last = other.rpartition(b"/")
            directory = directory_tree.open_directory(self._target, above)
            try:
                with self._staging.scratch_name() as (spare, spare_name):
                    os.link(last, spare_name, src_dir_fd=directory, dst_dir_fd=spare, follow_symlinks=False)
                    self._clear(outer, name, there)
                    os.rename(spare_name, name, src_dir_fd=spare, dst_dir_fd=outer)
            finally:
                os.close(directory)
            return
        self.problems.add(path, "could not be restored: the file that it is another name of is gone")

    def _origin_stays(self, path: bytes) -> None:
        above, name = split(path)
        with (
            directory_tree.opened_directory(self._tree, above) as inner,
            suppress(FileNotFoundError, NotADirectoryError),
        ):
            found = _status(inner, name)
            with directory_tree.opened_directory(self._target, above) as outer:
                if found is not None:
                    self._stays(inner, outer, path, found)

    def _adjust(self, inner: int, outer: int, path: bytes, there: os.stat_result, found: os.stat_result) -> None:
        """Give a file that is there what rsync gave to what stands for it: mode, owners, time and attributes."""
        name = path.rpartition(b"/")[2]
        is_owned = (there.st_uid, there.st_gid) == (found.st_uid, found.st_gid)
        if not self._is_root:
            # Who is not root could not give its basis file every owner.
            is_owned = found.st_gid in (there.st_gid, self._group)
        is_same_mode = stat.S_IMODE(there.st_mode) == stat.S_IMODE(found.st_mode)
        has, wanted = self._attributes(inner, outer, name)
        is_same = is_same_mode and not file_metadata.changes_between(has, wanted, self._removed)
        if is_owned and is_same and there.st_mtime_ns - found.st_mtime_ns in (0, 1):
            return
        if self._basis_files.link_count(there) > len(self._basis_files.paths_of(found.st_ino)):
            # It has names elsewhere, which nobody asked to have changed.
            changes = file_metadata.changes_between(has, wanted, self._removed)
            attributes = {key: has[key] for key in has if changes.get(key, b"") is not None} | wanted
            self._replace_by_copy(outer, path, (there, found), attributes)
            return
        handle = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=outer)
        try:
            if os.fstat(handle).st_ino == there.st_ino:
                failed = file_metadata.apply(
                    f"/proc/self/fd/{handle}",
                    found,
                    wanted,
                    has=has,
                    removed=self._removed,
                    sets_owner=not is_owned,
                )
                self._tell_failed(path, failed)
        finally:
            os.close(handle)

    def _replace_by_copy(
        self,
        outer: int,
        path: bytes,
        statuses: tuple[os.stat_result, os.stat_result],
        attributes: dict[str, bytes],
    ) -> None:
        """Let all names of the file that are restored be names of a copy; ``path`` is one of them.

        ``statuses`` are those of the file that is there, and of what stands for it.
        """
        there, wanted = statuses
        name = path.rpartition(b"/")[2]
        source = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=outer)
        try:
            if not os.path.samestat(os.fstat(source), there):
                return
            with self._staging.scratch_name() as (spare, spare_name):
                self._tell_failed(path, _copy(source, spare, spare_name, wanted, attributes))
                os.rename(spare_name, name, src_dir_fd=spare, dst_dir_fd=outer)
        finally:
            os.close(source)
        for other in self._basis_files.paths_of(wanted.st_ino):
            above, last = split(other)
            directory = directory_tree.open_directory(self._target, above)
            try:
                found = _status(directory, last)
                if found is not None and os.path.samestat(found, there):
                    with self._staging.scratch_name() as (spare, spare_name):
                        os.link(name, spare_name, src_dir_fd=outer, dst_dir_fd=spare, follow_symlinks=False)
                        os.rename(spare_name, last, src_dir_fd=spare, dst_dir_fd=directory)
            finally:
                os.close(directory)

    # --- moving

    def _move(self, inner: int, outer: int, path: bytes, found: os.stat_result) -> None:
        name = path.rpartition(b"/")[2]
        try:
            os.rename(name, name, src_dir_fd=inner, dst_dir_fd=outer)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            self._copy_across(inner, outer, path, found)

    def _copy_across(self, inner: int, outer: int, path: bytes, found: os.stat_result) -> None:
        """Move what belongs onto another file system, which is mounted in the target."""
        name = path.rpartition(b"/")[2]
        attributes = file_metadata.read(file_metadata.proc_path(inner, name), EVERY_KIND)
        with _spare_beside(outer, self._staging.name) as spare:
            if stat.S_ISREG(found.st_mode):
                source = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=inner)
                try:
                    self._tell_failed(path, _copy(source, spare, name, found, attributes))
                finally:
                    os.close(source)
            else:
                if stat.S_ISLNK(found.st_mode):
                    os.symlink(os.readlink(name, dir_fd=inner), name, dir_fd=spare)
                else:
                    os.mknod(name, found.st_mode, found.st_rdev, dir_fd=spare)
                if self._is_root:
                    os.chown(name, found.st_uid, found.st_gid, dir_fd=spare, follow_symlinks=False)
                if not stat.S_ISLNK(found.st_mode):
                    way = os.fsdecode(file_metadata.proc_path(spare, name))
                    failed = file_metadata.apply(way, found, attributes, has={}, removed=(), sets_owner=False)
                    self._tell_failed(path, failed)
                times = (found.st_atime_ns, found.st_mtime_ns)
                os.utime(name, ns=times, dir_fd=spare, follow_symlinks=False)
            os.rename(name, name, src_dir_fd=spare, dst_dir_fd=outer)


@contextmanager
def _spare_beside(directory: int, prefix: bytes) -> Iterator[int]:
    """A new directory within the open one, for the length of the block; nobody else can change what is in it.

    Who may write to the open directory could otherwise put a link in the place of what is made there. Raises OSError.
    """
    name = prefix + b"-" + os.urandom(4).hex().encode()
    os.mkdir(name, 0o700, dir_fd=directory)
    try:
        spare = os.open(name, directory_tree.DIRECTORY_FLAGS, dir_fd=directory)
        try:
            found = os.fstat(spare)
            if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
                raise OSError(errno.EPERM, "somebody else changes the directory meanwhile", os.fsdecode(name))
            posix_acl.clear(spare)
            yield spare
        finally:
            os.close(spare)
    finally:
        with suppress(OSError):
            removal.remove(directory, name)


def _outermost(paths: Sequence[bytes]) -> list[bytes]:
    """Return the paths without those below another one: what was moved would be missing when it is looked at again."""
    asked = set(paths)
    return [
        path
        for path in dict.fromkeys(paths)
        if not any(path[:end] in asked for end, byte in enumerate(path) if byte == ord("/"))
    ]


def _told(parents: Iterable[ParentDirectory]) -> dict[bytes, ParentDirectory]:
    known: dict[bytes, ParentDirectory] = {}
    for parent in parents:
        with suppress(InvalidValue):
            known[names.path_inside(path_bytes(parent.path))] = parent
    return known


def _and_above(path: bytes) -> Iterator[bytes]:
    while path:
        yield path
        path = path.rpartition(b"/")[0]


def _is_empty(directory: int, name: bytes) -> bool:
    """Return True for a directory that nothing is in."""
    try:
        descriptor = directory_tree.open_directory(directory, name)
    except NotADirectoryError:
        return False
    try:
        with os.scandir(descriptor) as entries:
            return next(entries, None) is None
    finally:
        os.close(descriptor)


def _status(directory: int, name: bytes) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _is_alike(inner: int, outer: int, name: bytes, found: os.stat_result, there: os.stat_result) -> bool:
    """Whether a link or a special file is there already, so that it may stay."""
    if stat.S_ISREG(found.st_mode) or (found.st_mode, found.st_uid, found.st_gid, found.st_mtime_ns) != (
        there.st_mode,
        there.st_uid,
        there.st_gid,
        there.st_mtime_ns,
    ):
        return False
    if stat.S_ISLNK(found.st_mode):
        return os.readlink(name, dir_fd=inner) == os.readlink(name, dir_fd=outer)
    return found.st_rdev == there.st_rdev


def _copy(source: int, directory: int, name: bytes, wanted: os.stat_result, attributes: dict[str, bytes]) -> list[str]:
    """Copy an open file, with its holes; return the attributes that could not be set."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags, 0o600, dir_fd=directory)
    try:
        holes.copy_content(source, descriptor)
        return file_metadata.apply(descriptor, wanted, attributes, has={}, removed=())
    finally:
        os.close(descriptor)


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
