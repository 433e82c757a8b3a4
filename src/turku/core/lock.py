"""Locks between runs of one program. The kernel holds them, so a killed run leaves no stale lock."""

import fcntl
import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from turku.core import durable
from turku.errors import DurableWriteFailed, LockHeld

_LOCKS_TABLE = Path("/proc/locks")
_HELD = re.compile(r"^\d+: FLOCK +\S+ +WRITE +-?\d+ [0-9a-f]+:[0-9a-f]+:(\d+) ", re.MULTILINE)
"""A lock in the kernel's table, and not one that waits. The group is its inode."""
_HINT = "lock_dir must belong to the user that runs this program, and the lock must be no symbolic link"


@contextmanager
def exclusive(directory: Path, name: str) -> Iterator[None]:
    """Hold the lock ``name`` in ``directory`` (made private) for the length of the block.

    Raises LockHeld at once if another process holds it, DurableWriteFailed if its file cannot be opened or belongs to
    another user.
    """
    durable.make_private_directory(directory)
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with exclusive_in(descriptor, name, shown=directory):
            yield
    finally:
        os.close(descriptor)


@contextmanager
def exclusive_in(directory: int, name: str, *, shown: Path) -> Iterator[None]:
    """Hold the lock ``name`` in an open directory, as ``exclusive`` does. ``shown`` is its path for messages."""
    path = shown / f"{name}.lock"
    # In a shared lock_dir, somebody may have planted a link, or a pipe that would block (threats N4). Reading access is
    # enough for a lock, also on a file that root created for a user who may read everything.
    flags = os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path.name, flags, 0o600, dir_fd=directory)
    except OSError as error:
        raise DurableWriteFailed(f"cannot open the lock {path}: {error.strerror or error}", hint=_HINT) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid not in (0, os.geteuid(), os.fstat(directory).st_uid):
            raise DurableWriteFailed(f"the lock {path} was put there by another user", hint=_HINT)
        with exclusive_descriptor(descriptor, shown=path):
            yield
    finally:
        os.close(descriptor)


@contextmanager
def one_of(directory: Path, names: Iterable[str]) -> Iterator[None]:
    """Hold the first free lock of these, as ``exclusive`` does. Raises LockHeld if none is free."""
    with ExitStack() as stack:
        for name in names:
            with suppress(LockHeld):
                stack.enter_context(exclusive(directory, name))
                break
        else:
            raise LockHeld("other runs hold each of these locks", hint="wait for one of them to end")
        yield


def held_names(directory: Path) -> set[str]:
    """Return the names of the locks in the directory that a process holds at this moment. None of them is touched.

    Processes of another container do not show.
    """
    try:
        table = _LOCKS_TABLE.read_text(errors="replace")
        inodes = {entry.inode(): entry.name for entry in os.scandir(directory) if entry.name.endswith(".lock")}
    except OSError:
        return set()
    # The device is left out: file systems with several roots, such as btrfs, show another one there.
    held = {int(number) for number in _HELD.findall(table)}
    return {name.removesuffix(".lock") for inode, name in inodes.items() if inode in held}


@contextmanager
def exclusive_directory(directory: Path) -> Iterator[None]:
    """Hold a lock on the directory itself. It needs no file, so it works on a full disk.

    Raises LockHeld at once if another process holds it, OSError if the directory cannot be opened.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        with exclusive_descriptor(descriptor, shown=directory):
            yield
    finally:
        os.close(descriptor)


@contextmanager
def exclusive_descriptor(descriptor: int, *, shown: Path) -> Iterator[None]:
    """Hold a lock on an open directory, as ``exclusive_directory`` does. ``shown`` is its path for messages."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise LockHeld(
            f"another run holds {shown}",
            hint="wait for it to end; the lock goes with its process, so there is nothing to delete",
        ) from None
    yield
