"""The staging directory: the directory that a restore offers to the storage. Nothing of the user's is in it.

It lies in the target, so that received files are moved to their places by a rename. Only its owner can enter it. rsyncd
is given the directory that is held open here, not a path that somebody else could redirect meanwhile. A killed restore
leaves the directory, and ``staging_records`` remembers it.
"""

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

import msgspec

from turku.agent.config.model import AgentConfig, AgentState
from turku.agent.rsyncd import nodev_mount
from turku.agent.state import staging_records
from turku.agent.state.staging_records import StagingRecord
from turku.core.filesystem import directory_tree, posix_acl, removal
from turku.core.filesystem.paths import joined
from turku.core.filesystem.spool import Stack
from turku.errors import RestoreFailed

_TREE = b"tree"
_SCRATCH = b"scratch"


class StagingDirectory:
    """A staging directory. Use ``opened`` to get one."""

    def __init__(
        self, agent: AgentConfig, target: int, place: Path, record: StagingRecord, *, is_resumed: bool
    ) -> None:
        self.is_resumed = is_resumed
        """True where it holds what an earlier run of the same job received."""
        self.is_removed = False
        self._agent = agent
        self._target = target
        self._place = place
        self._record = record
        self._root = directory_tree.open_directory(target, os.fsencode(record.name))
        self.tree = self.offered = -1
        try:
            self.tree = directory_tree.open_directory(self._root, _TREE)
            # The same directory, through which no device can be opened and nothing be moved out.
            self.offered = nodev_mount.open_nodev(self.tree)
        except (OSError, RestoreFailed):
            self._close()
            raise

    @classmethod
    @contextmanager
    def opened(
        cls, agent: AgentConfig, target: int, place: Path, job: str, *, is_target_new: bool = False
    ) -> Iterator[Self]:
        """Give the staging directory of the job in the open directory ``target``, whose path is ``place``.

        ``job`` is the digest of the restore job. The directory of an earlier run of the same job is used where that is
        possible, else a new one. It stays after the block unless ``remove`` was called. ``is_target_new`` says that the
        target was created for this restore. Raises RestoreFailed.
        """
        try:
            # An interrupted run of the restore may have created the target.
            before = (
                staging_records.read(agent.state, place) if staging_records.is_interrupted(agent.state, place) else None
            )
            is_target_new = is_target_new or (before is not None and before.is_target_new)
            staging = cls._resumed(agent, target, place, job) or cls._fresh(
                agent, target, place, job, is_target_new=is_target_new
            )
        except OSError as error:
            raise RestoreFailed(
                f"cannot write into {place}: {error.strerror or error}",
                hint="is it full, read-only or immutable (lsattr)? --to names another directory"
                if os.geteuid() == 0
                else "root may write into others' directories; --to names another one",
            ) from error
        try:
            yield staging
        finally:
            staging._close()

    @classmethod
    def _resumed(cls, agent: AgentConfig, target: int, place: Path, job: str) -> Self | None:
        record = staging_records.read(agent.state, place)
        if record is None:
            return None
        name = os.fsencode(record.name)
        found = directory_tree.status(target, name)
        if found is None or not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            return None
        if record.job == job and not record.has_basis_files:
            with suppress(FileNotFoundError, NotADirectoryError):
                staging = cls(agent, target, place, record, is_resumed=True)
                staging._remove_special_files()
                return staging
        with _times_preserved(target):
            removal.remove(target, name)
        return None

    @classmethod
    def _fresh(cls, agent: AgentConfig, target: int, place: Path, job: str, *, is_target_new: bool) -> Self:
        name = staging_records.PREFIX + secrets.token_hex(16)
        record = StagingRecord(
            name, job, has_basis_files=False, target=os.fsencode(place).hex(), is_target_new=is_target_new
        )
        # The record comes first: a directory without a record would never be found and removed.
        staging_records.write(agent.state, place, record)
        with _times_preserved(target):
            os.mkdir(record.name, 0o700, dir_fd=target)
        with directory_tree.opened_directory(target, os.fsencode(record.name)) as root:
            # New entries would inherit the target's default ACL and be open to those whom it names.
            posix_acl.clear(root)
            os.mkdir(_TREE, 0o700, dir_fd=root)
        return cls(agent, target, place, record, is_resumed=False)

    @property
    def name(self) -> bytes:
        """Its name in the target."""
        return os.fsencode(self._record.name)

    @property
    def is_target_new(self) -> bool:
        """True where this restore, or the one that it resumes, created the target."""
        return self._record.is_target_new

    @property
    def module_path(self) -> str:
        """The path by which our rsyncd reaches the directory that is held open, wherever it is moved to."""
        return nodev_mount.path(self.offered)

    def _close(self) -> None:
        for descriptor in (self.offered, self.tree, self._root):
            if descriptor >= 0:
                os.close(descriptor)

    def record_basis_files(self, *, are_there: bool) -> None:
        """Record durably that basis files are being created, or that all of them are gone again."""
        self._record = msgspec.structs.replace(self._record, has_basis_files=are_there)
        staging_records.write(self._agent.state, self._place, self._record)

    @contextmanager
    def scratch_name(self) -> Iterator[tuple[int, bytes]]:
        """Give an open directory on the target's file system that rsync cannot reach, and a free name in it."""
        with suppress(FileNotFoundError):
            os.unlink(_SCRATCH, dir_fd=self._root)
        yield self._root, _SCRATCH
        with suppress(FileNotFoundError):
            os.unlink(_SCRATCH, dir_fd=self._root)

    def remove(self) -> None:
        """Remove the directory with everything in it. Raises RestoreFailed."""
        try:
            with _times_preserved(self._target):
                removal.remove(self._target, self.name)
        except OSError as error:
            raise RestoreFailed(
                f"cannot remove {self._place / self._record.name}: {error.strerror or error}",
                hint="remove it by hand: nothing in it is needed any more",
            ) from error
        self.is_removed = True
        staging_records.remove(self._agent.state, self._place)

    def _remove_special_files(self) -> None:
        """Remove links and special files, which cost nothing to be sent again.

        Where rsyncd is not locked into the directory, a storage could leave it by way of them.
        """
        with Stack() as waiting:
            waiting.push(b"")
            while (path := waiting.pop()) is not None:
                with directory_tree.opened_directory(self.tree, path) as directory:
                    removal.make_writable(directory)
                    with os.scandir(directory) as entries:
                        for entry in entries:
                            name = os.fsencode(entry.name)
                            if entry.is_dir(follow_symlinks=False):
                                waiting.push(joined(path, name))
                            elif not entry.is_file(follow_symlinks=False):
                                os.unlink(name, dir_fd=directory)


def discard(configuration: AgentState, target: int, place: Path) -> None:
    """Remove what an interrupted restore left in the open directory ``target``, so that nothing resumes there."""
    record = staging_records.read(configuration, place)
    if record is None:
        return
    with suppress(OSError), _times_preserved(target):
        found = directory_tree.status(target, os.fsencode(record.name))
        if found is not None and found.st_uid == os.geteuid():
            removal.remove(target, os.fsencode(record.name))
        staging_records.remove(configuration, place)


@contextmanager
def _times_preserved(directory: int) -> Iterator[None]:
    """Set the times of an open directory back after the block, which adds or removes entries of ours."""
    found = os.fstat(directory)
    yield
    with suppress(OSError):
        os.utime(directory, ns=(found.st_atime_ns, found.st_mtime_ns))
