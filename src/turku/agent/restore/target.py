"""The directory that a restore writes into: made, and held so that no other restore writes into it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from turku.agent.config.model import AgentConfig
from turku.agent.restore import staging_directory
from turku.core import lock
from turku.core.filesystem import directory_tree
from turku.errors import LockHeld, RestoreFailed


def is_empty(agent: AgentConfig, directory: Path) -> bool:
    """Whether nothing can be overwritten there: it is missing, empty, or what an interrupted restore left."""
    try:
        with os.scandir(directory) as entries:
            return staging_directory.is_interrupted(agent, directory) or next(entries, None) is None
    except FileNotFoundError:
        return True
    except OSError as error:
        raise RestoreFailed(f"{directory} cannot be restored into: {error.strerror}") from error


@contextmanager
def locked(directory: Path) -> Iterator[int]:
    """Give a descriptor of the target, which no other restore writes into for the length of the block.

    It is made (0700) where it is missing. The path's links were followed when somebody named it: none is followed here,
    as it could have been put there since. Raises RestoreFailed, LockHeld.
    """
    try:
        if not directory.is_absolute():
            raise NotADirectoryError
        descriptor = directory_tree.open_made(directory, mode=0o700)
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
