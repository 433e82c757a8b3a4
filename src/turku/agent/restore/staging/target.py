"""The target: the directory that a restore writes into, locked so that no other restore writes into it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from turku.agent.config.model import AgentState
from turku.agent.state import staging_records
from turku.core import lock
from turku.core.filesystem import directory_tree
from turku.errors import LockHeld, RestoreFailed


def is_empty(configuration: AgentState, directory: Path) -> bool:
    """Return True where nothing can be overwritten: the target is missing, empty, or left by an interrupted restore.

    Raises RestoreFailed where it cannot be read.
    """
    try:
        with os.scandir(directory) as entries:
            return staging_records.is_interrupted(configuration, directory) or next(entries, None) is None
    except FileNotFoundError:
        return True
    except OSError as error:
        raise RestoreFailed(f"cannot restore into {directory}: {error.strerror}") from error


@contextmanager
def locked(directory: Path) -> Iterator[int]:
    """Lock the target for the length of the block, and give its descriptor.

    The target is created (0700) where it is missing. Links in the path were resolved when somebody named it. None is
    followed here, as it could have been put there since. Raises RestoreFailed, LockHeld.
    """
    try:
        if not directory.is_absolute():
            raise NotADirectoryError
        descriptor = directory_tree.open_or_create(directory, mode=0o700)
    except NotADirectoryError as error:
        raise RestoreFailed(
            f"{error.filename or directory} is a symbolic link, or not a directory",
            hint="name the directory that it leads to",
        ) from error
    except OSError as error:
        raise RestoreFailed(f"cannot restore into {directory}: {error.filename}: {error.strerror}") from error
    try:
        with lock.exclusive_descriptor(descriptor, shown=directory):
            yield descriptor
    except LockHeld:
        raise LockHeld(f"another restore into {directory} is running", hint="wait for it to end") from None
    finally:
        os.close(descriptor)
