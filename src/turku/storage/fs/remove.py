"""Removal of a tree on a volume. The tree may be a subvolume or contain one."""

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from turku.core.filesystem import removal
from turku.errors import DurableWriteFailed
from turku.storage.fs import subvolume, tree


def remove_tree(path: Path, go_on: Callable[[], bool] = lambda: True) -> bool:
    """Remove the file, link or directory at ``path``. Return False if ``go_on`` returned False before the end.

    Raises DurableWriteFailed, with the name of what could not be removed.
    """
    status = tree.status(path)
    if status is None:
        return True
    try:
        if stat.S_ISDIR(status.st_mode) and subvolume.is_subvolume(path) and subvolume.delete(path):
            return True
        with tree.opened(path.parent) as parent:
            removal.remove(parent, os.fsencode(path.name), go_on=go_on, prepare=_unlock)
        return True
    except removal.RemovalStopped:
        return False
    except OSError as error:
        raise DurableWriteFailed(
            f"cannot remove {path}: {error.strerror or error}" + (f" ({error.filename!r})" if error.filename else ""),
            hint="is it held by another program, immutable (lsattr), or another user's?",
        ) from error


def open_changeable(name: bytes, *, parent: int) -> int:
    """Return a descriptor of the directory, made readable and writable for its owner if it was not."""
    return removal.open_changeable(name, parent=parent, prepare=_unlock)


def _unlock(directory: int) -> None:
    if os.fstat(directory).st_ino == subvolume.ROOT_INODE:
        # The root of a file system, or a subvolume, which may be read-only.
        with suppress(OSError):
            subvolume.set_read_only_by_descriptor(directory, read_only=False)
