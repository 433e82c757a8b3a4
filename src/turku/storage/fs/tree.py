"""File access on volumes. Every name is reached through open directories, and no symbolic link is followed.

A machine chooses the names in its trees, and another storage, another user or an earlier fault may have left links
beside them. A path on a volume is therefore only a name. Its directory is opened with ``openat2`` and
``RESOLVE_NO_SYMLINKS``, or component by component where the kernel lacks that, and the last name is looked up in the
open directory. The paths of the volumes themselves are resolved once, when the configuration is read.

``tests/unit/house/test_volume_access.py`` checks that all other modules use this one.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from turku.core import durable, lock
from turku.core.filesystem import openat2
from turku.core.filesystem.directory_tree import CREATE_FLAGS
from turku.core.filesystem.removal import set_mode_of_handle
from turku.errors import BackupFailed, DurableWriteFailed

_DIRECTORY, _HANDLE = openat2.DIRECTORY, openat2.HANDLE
SAYS_NOTHING = (errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR, errno.ESTALE)
"""Passing errors, or errors of a disk. They do not tell what a file is or what a file system can do."""


# --- opening


@contextmanager
def opened(path: Path, flags: int = _DIRECTORY) -> Iterator[int]:
    """Open the directory for the length of the block, and yield its descriptor.

    No part of the path may be a symbolic link. Raises OSError: ELOOP or ENOTDIR for a link, FileNotFoundError for a
    missing directory.
    """
    descriptor = openat2.open_absolute(path, flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _name(path: Path) -> str:
    """Return the last name of the path. Raises OSError for '..', which is not a name in a directory."""
    if path.name in ("", ".."):
        raise OSError(errno.EINVAL, "is not a name in a directory", str(path))
    return path.name


@contextmanager
def _parent(path: Path) -> Iterator[int]:
    _name(path)
    # Open it for reading, as it is flushed. A backed-up directory is never a parent here, so it is readable.
    with opened(path.parent) as directory:
        yield directory


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DurableWriteFailed(
            f"cannot write {path}: {error.strerror or error}",
            hint="check free space, inodes and permissions of that directory, and that no part of it is a link",
        ) from error


# --- reading


def status(path: Path) -> os.stat_result | None:
    """Return the status of what lies at the path, or None for nothing, or where a link is on the way.

    A link at the path itself is not followed.
    """
    try:
        with opened(path.parent, _HANDLE) as directory:
            return os.stat(_name(path), dir_fd=directory, follow_symlinks=False)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return None
        raise


def exists(path: Path) -> bool:
    """Return True if anything lies at the path, even a link."""
    return status(path) is not None


def is_directory(path: Path) -> bool:
    """Return True if a directory, not a link to one, lies at the path."""
    found = status(path)
    return found is not None and stat.S_ISDIR(found.st_mode)


def is_file(path: Path) -> bool:
    """Return True if a regular file lies at the path."""
    found = status(path)
    return found is not None and stat.S_ISREG(found.st_mode)


def link_target(path: Path) -> str | None:
    """Return the target of the symbolic link at the path, or None where there is no link."""
    try:
        with opened(path.parent, _HANDLE) as directory:
            return os.readlink(_name(path), dir_fd=directory)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EINVAL):
            return None
        raise


def names(path: Path) -> list[str]:
    """Return the names in the directory, sorted, or empty if there is no such directory."""
    try:
        with opened(path) as directory:
            return sorted(map(os.fsdecode, names_in(directory)))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return []
        raise


def names_in(directory: int) -> list[bytes]:
    """Return the names in an open directory."""
    return [os.fsencode(name) for name in os.listdir(directory)]


def read_file(path: Path, *, limit_bytes: int) -> bytes:
    """Return up to ``limit_bytes`` of the regular file at the path. Raises OSError for anything else."""
    with opened(path.parent, _HANDLE) as directory:
        return durable.read_regular_file_in(directory, _name(path), limit_bytes=limit_bytes)


# --- changing


def make_directory(path: Path) -> None:
    """Create the directory at the path if it is missing, readable by its owner alone.

    Raises BackupFailed if something else has the name, and DurableWriteFailed.
    """
    try:
        with _parent(path) as parent:
            os.mkdir(path.name, 0o700, dir_fd=parent)
            os.fsync(parent)
    except FileExistsError:
        if not is_directory(path):
            raise BackupFailed(
                f"{path} is not a directory",
                hint="move it away; a source that lies elsewhere needs a volume or a bind mount there",
            ) from None
    except OSError as error:
        raise DurableWriteFailed(f"cannot make {path}: {error.strerror or error}") from error


def move_directory(source: Path, target: Path) -> None:
    """Rename a directory durably, keeping its mode. Raises DurableWriteFailed.

    The kernel demands write permission on a directory that gets another parent, and a backed-up directory may lack it.
    """
    with _explained(target), _parent(source) as before, _parent(target) as after:
        mode = stat.S_IMODE(os.stat(source.name, dir_fd=before, follow_symlinks=False).st_mode)
        is_forbidding = source.parent != target.parent and not mode & stat.S_IWUSR
        if is_forbidding:
            _set_mode(before, source.name, mode | stat.S_IRWXU)
        durable.rename_in(before, source.name, after, target.name)
        if is_forbidding:
            _set_mode(after, target.name, mode)


def rename(source: Path, target: Path) -> None:
    """Rename what lies at ``source`` durably. Raises DurableWriteFailed."""
    with _explained(target), _parent(source) as before, _parent(target) as after:
        durable.rename_in(before, source.name, after, target.name)


def hard_link(source: Path, target: Path) -> None:
    """Give the file at ``source`` a further name. Raises OSError."""
    with _parent(source) as before, _parent(target) as after:
        os.link(source.name, target.name, src_dir_fd=before, dst_dir_fd=after, follow_symlinks=False)


def unlink(path: Path) -> None:
    """Remove the file or link at the path, if there is one. Raises OSError."""
    with suppress(FileNotFoundError), _parent(path) as parent:
        os.unlink(path.name, dir_fd=parent)


def remove_directory(path: Path) -> None:
    """Remove the empty directory at the path. Raises OSError."""
    with _parent(path) as parent:
        os.rmdir(path.name, dir_fd=parent)


def write_bytes(path: Path, content: bytes, *, owner: tuple[int, int] | None = None) -> None:
    """Replace the file at the path durably, readable by its owner alone. Raises DurableWriteFailed."""
    with _explained(path), _parent(path) as parent:
        durable.write_bytes_in(parent, path.name, content, owner=owner)


def write_json(path: Path, content: Any, *, owner: tuple[int, int] | None = None) -> None:
    """Replace the file at the path with JSON, durably. Raises DurableWriteFailed."""
    write_bytes(path, durable.json_bytes(content), owner=owner)


def write_symbolic_link(path: Path, target: str) -> None:
    """Create or replace the symbolic link at the path, durably. Raises DurableWriteFailed."""
    with _explained(path), _parent(path) as parent:
        durable.write_symbolic_link_in(parent, path.name, target)


def create_file(path: Path) -> int:
    """Create the file at the path, in place of an existing one, and return its descriptor. Raises OSError."""
    with _parent(path) as parent:
        with suppress(FileNotFoundError):
            os.unlink(path.name, dir_fd=parent)
        return os.open(path.name, CREATE_FLAGS, 0o600, dir_fd=parent)


def create_unnamed_file(directory: Path) -> int:
    """Return a descriptor of a new file without a name, on the file system of the directory. Raises OSError."""
    with opened(directory) as descriptor:
        try:
            return os.open(".", os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600, dir_fd=descriptor)
        except OSError:
            # A file system without such files, for example on a network.
            name = f".turku-unnamed-{os.getpid()}-{os.urandom(6).hex()}"
            file = os.open(name, CREATE_FLAGS, 0o600, dir_fd=descriptor)
            os.unlink(name, dir_fd=descriptor)
            return file


def remove_temporary_files(
    directory: Path, *, file_name: str = "", written_until_unix_seconds: float | None = None
) -> None:
    """Remove the temporary files that killed durable writes left in the directory, if it exists.

    ``file_name`` and ``written_until_unix_seconds`` are those of ``durable.remove_temporary_files_in``. Raises OSError.
    """
    with suppress(FileNotFoundError), opened(directory) as descriptor:
        durable.remove_temporary_files_in(
            descriptor, file_name=file_name, written_until_unix_seconds=written_until_unix_seconds
        )


def sync(path: Path) -> None:
    """Flush the file system that holds the path. Raises DurableWriteFailed."""
    with _explained(path), opened(path.parent) as directory:
        durable.sync_file_system_of(directory)


def change_mode(path: Path, mode: int) -> None:
    """Set the mode of the file or directory at the path. Raises OSError."""
    with _parent(path) as parent:
        _set_mode(parent, path.name, mode)


def _set_mode(parent: int, name: str, mode: int) -> None:
    handle = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        set_mode_of_handle(handle, mode)
    finally:
        os.close(handle)


@contextmanager
def locked(directory: Path, name: str) -> Iterator[None]:
    """Hold the lock ``name`` in the directory for the length of the block. Raises what ``lock.exclusive`` raises."""
    with opened(directory) as descriptor, lock.exclusive_in(descriptor, name, shown=directory):
        yield


@contextmanager
def locked_directory(directory: Path) -> Iterator[None]:
    """Hold a lock on the directory itself for the length of the block. Raises LockHeld, OSError."""
    with opened(directory) as descriptor, lock.exclusive_descriptor(descriptor, shown=directory):
        yield
