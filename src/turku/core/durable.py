"""The only module that writes files which must survive a crash.

Every change is complete or did not happen: temporary file beside the target, fsync, rename, fsync of the directory.
"""

import errno
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from turku.errors import DurableWriteFailed

_TEMPORARY_MARK = ".turku-tmp-"
# Without O_NONBLOCK, opening a pipe that took the file's place would block.
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DurableWriteFailed(
            f"cannot write {path}: {error.strerror or error}",
            hint="check free space, inodes and permissions of that directory",
        ) from error


def _temporary_name(name: str) -> str:
    # Hidden, so that no reader of a configuration directory reads a half-written file.
    # Cut by bytes, because a file system limits the bytes of a name (255).
    start = os.fsencode(name)[:100].decode("utf-8", "ignore")
    return f".{start}{_TEMPORARY_MARK}{os.urandom(6).hex()}"


def is_temporary_name(name: str) -> bool:
    """Return True for the name of a file that is being written."""
    return _TEMPORARY_MARK in name


def fsync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    with _opened(path) as descriptor:
        os.fsync(descriptor)


def sync_file_system_of(descriptor: int) -> None:
    """Make all files of the file system of an open file durable, by one call. Raises OSError."""
    # Imported here, so that a program that only takes a lock stays small.
    import ctypes

    if ctypes.CDLL(None, use_errno=True).syncfs(descriptor) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def make_private_directory(path: Path) -> Path:
    """Create the directory and its parents with mode 0700 where they do not exist, and return it."""
    with _explained(path):
        missing = [directory for directory in (path, *path.parents) if not directory.exists()]
        for directory in reversed(missing):
            # Not `parents=True`, which gives the parents the mode that the umask leaves.
            directory.mkdir(mode=0o700, exist_ok=True)
            fsync_directory(directory.parent)
        path.mkdir(mode=0o700, exist_ok=True)
    return path


def write_bytes(path: Path, content: bytes, *, mode: int = 0o600, owner: tuple[int, int] | None = None) -> None:
    """Replace the file at ``path``. ``owner`` is (uid, gid) where root writes for another user.

    A symbolic link at ``path`` is replaced, not followed.
    """
    with _explained(path), _opened(path.parent) as directory:
        write_bytes_in(directory, path.name, content, mode=mode, owner=owner)


def write_bytes_in(
    directory: int, name: str, content: bytes, *, mode: int = 0o600, owner: tuple[int, int] | None = None
) -> None:
    """Replace the file ``name`` in an open directory, as ``write_bytes`` does. Raises OSError."""
    temporary = _temporary_name(name)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o600, dir_fd=directory)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            if owner is not None:
                os.fchown(stream.fileno(), *owner)
            os.fchmod(stream.fileno(), mode)
            os.fsync(stream.fileno())
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        _unlink_in(directory, temporary)
        raise
    os.fsync(directory)


def read_regular_file(path: Path, *, limit_bytes: int) -> bytes:
    """Return the first ``limit_bytes`` of a file in a directory that others may write to.

    Raises OSError for anything but a regular file, such as a symbolic link, a pipe or a device.
    """
    return _read_regular_file(os.open(path, _READ_FLAGS), str(path), limit_bytes)


def read_regular_file_in(directory: int, name: str, *, limit_bytes: int) -> bytes:
    """Return the content of a file in an open directory, as ``read_regular_file`` does."""
    return _read_regular_file(os.open(name, _READ_FLAGS, dir_fd=directory), name, limit_bytes)


def _read_regular_file(descriptor: int, shown: str, limit_bytes: int) -> bytes:
    with os.fdopen(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise OSError(errno.EINVAL, "is not a regular file", shown)
        return stream.read(limit_bytes)


def write_text(path: Path, content: str, *, mode: int = 0o600, owner: tuple[int, int] | None = None) -> None:
    """Replace the file at ``path`` with UTF-8 text."""
    write_bytes(path, content.encode(), mode=mode, owner=owner)


@contextmanager
def new_file(path: Path, *, mode: int = 0o600) -> Iterator[BinaryIO]:
    """Yield a stream that writes a new file, and make the file durable at the end of the block.

    The name shows at once, so the file belongs into a directory that nobody reads yet. Raises DurableWriteFailed, also
    for a file that exists.
    """
    with _explained(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())


def write_new_text(path: Path, content: str, *, mode: int = 0o600) -> bool:
    """Create the file at ``path`` and return True. Return False, without a change, if it exists already.

    If several processes try at once, one of them creates the file, and no reader sees it half written.
    """
    with _explained(path):
        temporary = path.with_name(_temporary_name(path.name))
        try:
            write_text(temporary, content, mode=mode)
            try:
                os.link(temporary, path)
            except FileExistsError:
                return False
            fsync_directory(path.parent)
            return True
        finally:
            temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any, *, mode: int = 0o600, owner: tuple[int, int] | None = None) -> None:
    """Replace the file at ``path`` with indented JSON, keys sorted."""
    write_bytes(path, json_bytes(content), mode=mode, owner=owner)


def json_bytes(content: Any) -> bytes:
    """Return the content as ``write_json`` writes it."""
    return (json.dumps(content, indent=4, sort_keys=True, ensure_ascii=True) + "\n").encode()


def write_symbolic_link(path: Path, target: str) -> None:
    """Create a symbolic link to ``target`` at ``path``, in place of any link or file there."""
    with _explained(path), _opened(path.parent) as directory:
        write_symbolic_link_in(directory, path.name, target)


def write_symbolic_link_in(directory: int, name: str, target: str) -> None:
    """Create a symbolic link in an open directory, as ``write_symbolic_link`` does. Raises OSError."""
    with suppress(OSError):
        if os.readlink(name, dir_fd=directory) == target:
            return
    temporary = _temporary_name(name)
    try:
        os.symlink(target, temporary, dir_fd=directory)
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        _unlink_in(directory, temporary)
        raise
    os.fsync(directory)


def rename(source: Path, target: Path) -> None:
    """Move a file within one file system, durably. Both directories are flushed."""
    with _explained(target), _opened(source.parent) as before, _opened(target.parent) as after:
        rename_in(before, source.name, after, target.name)


def rename_in(directory: int, name: str, target_directory: int, target_name: str) -> None:
    """Move a file between open directories, as ``rename`` does. Raises OSError."""
    os.rename(name, target_name, src_dir_fd=directory, dst_dir_fd=target_directory)
    os.fsync(target_directory)
    os.fsync(directory)


def remove_temporary_files(directory: Path, *, name_prefix: str = "") -> list[Path]:
    """Remove the temporary files that a killed run left in ``directory``, and return their paths.

    With ``name_prefix``, only those of files whose names begin with it.
    """
    with _opened(directory) as descriptor:
        return [directory / name for name in remove_temporary_files_in(descriptor, name_prefix=name_prefix)]


def remove_temporary_files_in(
    directory: int, *, name_prefix: str = "", file_name: str = "", written_until_unix_seconds: float | None = None
) -> list[str]:
    """Remove temporary files in an open directory, as ``remove_temporary_files`` does, and return their names.

    With ``file_name``, only those of that one file. With ``written_until_unix_seconds``, only those last written by
    then, because nobody works on them any more. Raises OSError.
    """
    begins = f".{file_name}{_TEMPORARY_MARK}" if file_name else f".{name_prefix}"
    left = [name for name in os.listdir(directory) if _TEMPORARY_MARK in name and name.startswith(begins)]
    if written_until_unix_seconds is not None:
        left = [name for name in left if _is_written_by(directory, name, written_until_unix_seconds)]
    for name in left:
        _unlink_in(directory, name)
    return left


def _is_written_by(directory: int, name: str, written_until_unix_seconds: float) -> bool:
    with suppress(FileNotFoundError):
        return os.stat(name, dir_fd=directory, follow_symlinks=False).st_mtime <= written_until_unix_seconds
    return False


def _unlink_in(directory: int, name: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=directory)


@contextmanager
def _opened(directory: Path) -> Iterator[int]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
