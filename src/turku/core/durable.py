"""The only module that writes files which must survive a crash.

Every change is whole or did not happen: a temporary file beside the target, fsync, rename, fsync of the directory.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from turku.errors import DurableWriteFailed

_TEMPORARY_MARK = ".turku-tmp-"


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DurableWriteFailed(
            f"cannot write {path}: {error.strerror or error}",
            hint="check free space, inodes and permissions of that directory",
        ) from error


def _temporary_name(path: Path) -> Path:
    # Hidden, so that no reader of a configuration directory takes a half-written file for a whole one.
    # Cut by bytes: a file system limits a name's bytes (255), whatever its characters take.
    start = os.fsencode(path.name)[:100].decode("utf-8", "ignore")
    return path.with_name(f".{start}{_TEMPORARY_MARK}{secrets.token_hex(6)}")


def fsync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file_system(path: Path) -> None:
    """Make all that was written to the file system of ``path`` durable: one call for a tree of any number of files."""
    with _explained(path):
        # Without permission on the path itself: a backed-up directory may deny its owner reading.
        descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            if ctypes.CDLL(None, use_errno=True).syncfs(descriptor) != 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number))
        finally:
            os.close(descriptor)


def make_private_directory(path: Path) -> Path:
    """The directory, made (with its parents) with mode 0700 where it did not exist."""
    with _explained(path):
        missing = [directory for directory in (path, *path.parents) if not directory.exists()]
        for directory in reversed(missing):
            # Not `parents=True`: it gives the parents the mode that the umask leaves.
            directory.mkdir(mode=0o700, exist_ok=True)
            fsync_directory(directory.parent)
        path.mkdir(mode=0o700, exist_ok=True)
    return path


def write_bytes(path: Path, content: bytes, *, mode: int = 0o600, owner: tuple[int, int] | None = None) -> None:
    """Replace the file at ``path``; ``owner`` is (uid, gid) where root writes for another user.

    A symbolic link at ``path`` is replaced, not followed.
    """
    with _explained(path):
        temporary = _temporary_name(path)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(content)
                stream.flush()
                if owner is not None:
                    os.fchown(stream.fileno(), *owner)
                os.fchmod(stream.fileno(), mode)
                os.fsync(stream.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        fsync_directory(path.parent)


def read_regular_file(path: Path, *, limit_bytes: int) -> bytes:
    """The first ``limit_bytes`` of a file in a directory that others may write to.

    Raises OSError for whatever else than a regular file is there: a symbolic link, a pipe without an end, a device.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise OSError(errno.EINVAL, "is not a regular file", str(path))
        return stream.read(limit_bytes)


def write_text(path: Path, content: str, *, mode: int = 0o600, owner: tuple[int, int] | None = None) -> None:
    """Replace the file at ``path`` with UTF-8 text."""
    write_bytes(path, content.encode(), mode=mode, owner=owner)


def write_new_text(path: Path, content: str, *, mode: int = 0o600) -> bool:
    """True when this call made the file at ``path``; False, and nothing changed, when it was there already.

    Of several processes that try at once, one makes it and no reader sees it half written.
    """
    with _explained(path):
        temporary = _temporary_name(path)
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
    text = json.dumps(content, indent=4, sort_keys=True, ensure_ascii=True) + "\n"
    write_text(path, text, mode=mode, owner=owner)


def write_symbolic_link(path: Path, target: str) -> None:
    """Let ``path`` be a symbolic link to ``target``, replacing a link or file that is there."""
    with _explained(path):
        if path.is_symlink() and str(path.readlink()) == target:
            return
        temporary = _temporary_name(path)
        try:
            temporary.symlink_to(target)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        fsync_directory(path.parent)


def rename(source: Path, target: Path) -> None:
    """Move within one file system, durably; both directories are flushed."""
    with _explained(target):
        source.rename(target)
        fsync_directory(target.parent)
        if source.parent != target.parent:
            fsync_directory(source.parent)


def remove_temporary_files(directory: Path, *, of: str = "") -> list[Path]:
    """The temporary files that a killed run left in ``directory``, removed; with ``of``, those of files whose names
    begin so."""
    left = [entry for entry in directory.iterdir() if _TEMPORARY_MARK in entry.name and entry.name.startswith(f".{of}")]
    for entry in left:
        entry.unlink(missing_ok=True)
    return left
