"""The directory of a source that comes from a profile, reached from an accepted directory without following a link.

The coordinator chooses the path of such a source, and other users of this machine may write below an accepted
directory. Neither can lead a backup to another place (threats C6): the directory is opened once, and rsyncd serves the
open directory, whatever is put in its place meanwhile.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from turku.agent.config.model import SourceConfig
from turku.core.filesystem import openat2
from turku.errors import InvalidValue

_LINK = (errno.ELOOP, errno.ENOTDIR, errno.EXDEV)


@contextmanager
def opened(source: SourceConfig) -> Iterator[int]:
    """Give a descriptor of the source's directory for the length of the block. Raises InvalidValue."""
    try:
        descriptor = _open(source)
    except OSError as error:
        raise InvalidValue(_reason(source, error)) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def served_path(descriptor: int) -> str:
    """Return the path by which this process and its children reach the open directory."""
    return f"/proc/{os.getpid()}/fd/{descriptor}"


def real_path(descriptor: int) -> str:
    """Return the path that the open directory has now."""
    return str(Path(f"/proc/self/fd/{descriptor}").readlink())


def problem(source: SourceConfig) -> str:
    """Return the reason for which the source would not be offered, or nothing. A missing directory is none."""
    try:
        os.close(_open(source))
    except FileNotFoundError:
        return ""
    except OSError as error:
        return _reason(source, error)
    return ""


def _open(source: SourceConfig) -> int:
    # The administrator wrote the accepted directory, which may be a link or lie behind one.
    accepted = Path(os.path.realpath(source.accepted_below))
    start = openat2.open_absolute(accepted, openat2.HANDLE)
    try:
        below = os.path.relpath(source.path, source.accepted_below)
        return openat2.open_directory(start, os.fsencode(below), openat2.HANDLE)
    finally:
        os.close(start)


def _reason(source: SourceConfig, error: OSError) -> str:
    if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.EXDEV):
        return f"{source.path} is no directory, or is reached below {source.accepted_below} by a symbolic link only"
    return f"{source.path} cannot be opened: {error.strerror}"
