"""Locks between runs of one program, kept by the kernel: a killed run leaves no stale lock."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from turku.core import durable
from turku.errors import DurableWriteFailed, LockHeld


@contextmanager
def exclusive(directory: Path, name: str) -> Iterator[None]:
    """Hold the lock ``name`` in ``directory`` (made private) for the length of the block.

    Raises LockHeld at once when another process holds it, DurableWriteFailed where its file cannot be opened.
    """
    durable.make_private_directory(directory)
    path = directory / f"{name}.lock"
    # O_NOFOLLOW: in a shared lock_dir somebody may have planted a link (threats N4).
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise DurableWriteFailed(
            f"cannot open the lock {path}: {error.strerror or error}",
            hint="lock_dir must belong to the user that runs this program, and the lock must be no symbolic link",
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LockHeld(
                f"another run holds {path}",
                hint="wait for it to end; the lock goes with its process, so there is nothing to delete",
            ) from None
        yield
    finally:
        os.close(descriptor)
