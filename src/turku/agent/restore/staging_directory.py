"""The directory of its own that a restore offers to the storage: nothing of the user's is in it.

It lies in the target, so that what arrived is moved to its place by renaming, and only its owner enters it. rsyncd is
given the directory that is held open here, not a path that somebody else could lead elsewhere meanwhile. What a killed
restore leaves is this directory. ``var_dir`` remembers its name, for the same command to go on with it, and for any
other command that restores into the target to remove it.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

import msgspec

from turku.agent import state
from turku.agent.config.model import AgentConfig
from turku.agent.rsyncd import nodev_mount
from turku.core import durable
from turku.core.filesystem import directory_tree, posix_acl, removal
from turku.core.spool import Stack
from turku.errors import RestoreFailed

PREFIX = ".turku-restore-"
_NAME = re.compile(rf"{re.escape(PREFIX)}[0-9a-f]{{32}}", re.ASCII)
_TREE = b"tree"
_SPARE = b"spare"
_STATE_DIRECTORY = "restores"
_STATE_LIMIT_BYTES = 16_384
_LOT_FILE = "lot"
"""What makes names unforeseeable; it stays the same, so that a restore finds what it had begun."""
_LOT_DIGITS = 64


class _Record(msgspec.Struct, frozen=True):
    """What ``var_dir`` has of the staging directory in a target."""

    name: str
    job: str
    """A digest of what is restored: only the same restore can use what has arrived."""
    has_basis_files: bool
    """Whether files may be in it that only stand for the user's: they are no part of what arrived."""
    target: str = ""
    """The path that it lies in; its bytes as hexadecimal digits."""
    is_target_new: bool = False
    """Whether the restore made the target: nobody gave that a mode, an owner or a time of its own."""


def existing(agent: AgentConfig) -> Iterator[Path]:
    """Yield the staging directories that are there: of restores that go on, and that did not come to their end."""
    try:
        files = sorted((agent.state.var_dir / _STATE_DIRECTORY).glob("*.json"))
    except OSError:
        return
    for file in files:
        remembered = _read(file)
        if remembered is not None and remembered.target:
            with suppress(ValueError, OSError):
                path = Path(os.fsdecode(bytes.fromhex(remembered.target))) / remembered.name
                if path.is_dir():
                    yield path


def secret_name(agent: AgentConfig, purpose: str) -> str:
    """Return a name that is the same whenever it is for the same purpose, and that nobody else can foretell."""
    file = state.directory(agent, _STATE_DIRECTORY) / _LOT_FILE
    try:
        lot = durable.read_regular_file(file, limit_bytes=_STATE_LIMIT_BYTES)
    except OSError:
        lot = b""
    if len(lot) < _LOT_DIGITS:
        lot = secrets.token_hex(_LOT_DIGITS // 2).encode()
        state.write_text(agent, file, lot.decode())
    return PREFIX + hashlib.sha256(lot + b"\0" + purpose.encode()).hexdigest()[:32]


def is_interrupted(agent: AgentConfig, target: Path) -> bool:
    """Whether an earlier restore into the target did not come to its end."""
    remembered = _record(agent, target)
    return remembered is not None and (target / remembered.name).is_dir()


def can_resume(agent: AgentConfig, target: Path, job: str) -> bool:
    """Return True where the same ``job`` into the target would use what arrived of an earlier run."""
    remembered = _record(agent, target)
    if remembered is None or remembered.job != job or remembered.has_basis_files:
        return False
    return (target / remembered.name).is_dir()


class StagingDirectory:
    """A staging directory; use ``opened`` to get one."""

    def __init__(self, agent: AgentConfig, target: int, place: Path, remembered: _Record, *, is_resumed: bool) -> None:
        self.is_resumed = is_resumed
        """Whether it holds what an earlier run of the same restore received."""
        self.is_removed = False
        self._agent = agent
        self._target = target
        self._place = place
        self._remembered = remembered
        self._root = directory_tree.open_directory(target, os.fsencode(remembered.name))
        self.tree = self.offered = -1
        try:
            self.tree = directory_tree.open_directory(self._root, _TREE)
            # The same directory: no device that lies in it can be opened there, and nothing be moved out of it.
            self.offered = nodev_mount.open_nodev(self.tree)
        except (OSError, RestoreFailed):
            self._close()
            raise

    @classmethod
    @contextmanager
    def opened(
        cls, agent: AgentConfig, target: int, place: Path, job: str, *, is_target_new: bool = False
    ) -> Iterator[Self]:
        """Give the staging directory in the open directory ``target``, whose path is ``place``, for ``job``.

        It is that of an earlier run of the same job where there is one that can be used, else a fresh one; it stays
        after the block unless ``remove`` was called. ``is_target_new`` says that the target was made for this restore.
        Raises RestoreFailed.
        """
        try:
            # One that was interrupted may have made it.
            before = _record(agent, place) if is_interrupted(agent, place) else None
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
        remembered = _record(agent, place)
        if remembered is None:
            return None
        name = os.fsencode(remembered.name)
        found = directory_tree.status(target, name)
        if found is None or not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            return None
        if remembered.job == job and not remembered.has_basis_files:
            with suppress(FileNotFoundError, NotADirectoryError):
                staging = cls(agent, target, place, remembered, is_resumed=True)
                staging._remove_special_files()
                return staging
        with _times_preserved(target):
            removal.remove(target, name)
        return None

    @classmethod
    def _fresh(cls, agent: AgentConfig, target: int, place: Path, job: str, *, is_target_new: bool) -> Self:
        name = PREFIX + secrets.token_hex(16)
        remembered = _Record(
            name, job, has_basis_files=False, target=os.fsencode(place).hex(), is_target_new=is_target_new
        )
        # First its name, then itself: what cannot be found again could never be removed.
        _write_record(agent, place, remembered)
        with _times_preserved(target):
            os.mkdir(remembered.name, 0o700, dir_fd=target)
        root = directory_tree.open_directory(target, os.fsencode(remembered.name))
        try:
            # What is made in it would get the default ACL of the target, and be open to those whom that names.
            posix_acl.clear(root)
            os.mkdir(_TREE, 0o700, dir_fd=root)
        finally:
            os.close(root)
        return cls(agent, target, place, remembered, is_resumed=False)

    @property
    def name(self) -> bytes:
        """Its name in the target."""
        return os.fsencode(self._remembered.name)

    @property
    def is_target_new(self) -> bool:
        """Whether this restore, or one that it goes on with, made the target."""
        return self._remembered.is_target_new

    @property
    def module_path(self) -> str:
        """The path by which our rsyncd gets at the directory that is held open, wherever that lies meanwhile."""
        return nodev_mount.path(self.offered)

    def _close(self) -> None:
        for descriptor in (self.offered, self.tree, self._root):
            if descriptor >= 0:
                os.close(descriptor)

    def record_basis_files(self, *, are_there: bool) -> None:
        """Remember durably that basis files are being made, or that all of them are gone again."""
        self._remembered = msgspec.structs.replace(self._remembered, has_basis_files=are_there)
        _write_record(self._agent, self._place, self._remembered)

    @contextmanager
    def scratch_name(self) -> Iterator[tuple[int, bytes]]:
        """Give a directory on the target's file system, outside of rsync's reach, and a name that is free in it."""
        with suppress(FileNotFoundError):
            os.unlink(_SPARE, dir_fd=self._root)
        yield self._root, _SPARE
        with suppress(FileNotFoundError):
            os.unlink(_SPARE, dir_fd=self._root)

    def remove(self) -> None:
        """Remove it with all that is in it. Raises RestoreFailed."""
        try:
            with _times_preserved(self._target):
                removal.remove(self._target, self.name)
        except OSError as error:
            raise RestoreFailed(
                f"{self._place / self._remembered.name} could not be removed: {error.strerror or error}",
                hint="nothing in it is needed any more; remove it",
            ) from error
        self.is_removed = True
        _state_file(self._agent, self._place).unlink(missing_ok=True)

    def _remove_special_files(self) -> None:
        """Remove links and special files, which cost nothing to be sent again: where rsyncd is not locked into the
        directory, a storage could go by way of them."""
        with Stack() as waiting:
            waiting.push(b"")
            while (path := waiting.pop()) is not None:
                directory = directory_tree.open_directory(self.tree, path)
                try:
                    removal.make_writable(directory)
                    with os.scandir(directory) as entries:
                        for entry in entries:
                            name = os.fsencode(entry.name)
                            if entry.is_dir(follow_symlinks=False):
                                waiting.push(path + b"/" + name if path else name)
                            elif not entry.is_file(follow_symlinks=False):
                                os.unlink(name, dir_fd=directory)
                finally:
                    os.close(directory)


def discard(agent: AgentConfig, target: int, place: Path) -> None:
    """Remove what an earlier restore left in the open directory ``target``; nobody will go on with it."""
    remembered = _record(agent, place)
    if remembered is None:
        return
    with suppress(OSError), _times_preserved(target):
        found = directory_tree.status(target, os.fsencode(remembered.name))
        if found is not None and found.st_uid == os.geteuid():
            removal.remove(target, os.fsencode(remembered.name))
        _state_file(agent, place).unlink(missing_ok=True)


def _state_file(agent: AgentConfig, target: Path) -> Path:
    digest = hashlib.sha256(os.fsencode(target)).hexdigest()[:32]
    return state.directory(agent, _STATE_DIRECTORY) / f"{digest}.json"


def _write_record(agent: AgentConfig, target: Path, remembered: _Record) -> None:
    state.write_text(agent, _state_file(agent, target), msgspec.json.encode(remembered).decode())


def _record(agent: AgentConfig, target: Path) -> _Record | None:
    return _read(_state_file(agent, target))


def _read(file: Path) -> _Record | None:
    try:
        content = durable.read_regular_file(file, limit_bytes=_STATE_LIMIT_BYTES)
        found = msgspec.json.decode(content, type=_Record)
    except (OSError, msgspec.DecodeError, msgspec.ValidationError):
        return None
    return found if _NAME.fullmatch(found.name) else None


@contextmanager
def _times_preserved(directory: int) -> Iterator[None]:
    """What is made in, or removed from, an open directory in the block does not count as a change of it."""
    found = os.fstat(directory)
    yield
    with suppress(OSError):
        os.utime(directory, ns=(found.st_atime_ns, found.st_mtime_ns))
