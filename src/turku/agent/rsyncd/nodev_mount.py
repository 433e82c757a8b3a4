"""A directory that a storage's rsync may write by way of our rsyncd, in which no device can be opened.

Device files are to come back like others, so that rsyncd makes what it is told to. It opens files by name, and writes
to whatever has that name by then: a storage could put a disk there. Root offers the directory by way of a mount that
knows no devices. Where there can be no such mount, rsyncd makes none.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from turku.core import bounding_set
from turku.core.filesystem import detached_mount
from turku.errors import RestoreFailed

_LOG = logging.getLogger(__name__)


def drop_device_capability() -> None:
    """To be called before rsyncd is started: see ``offered``."""
    if os.geteuid() != 0 or detached_mount.can_be_had() or not bounding_set.has(bounding_set.MAKE_DEVICES):
        return
    try:
        bounding_set.drop(bounding_set.MAKE_DEVICES)
    except OSError as error:
        # Nothing is offered then.
        _LOG.debug("CAP_MKNOD cannot be dropped: %s", error.strerror)
    else:
        _LOG.warning("no device files are restored, as no mount without devices can be made here")


def open_nodev(directory: int) -> int:
    """Return a descriptor of the open directory, by which no device is opened. Nothing can be moved out of there by it.

    Raises RestoreFailed where rsyncd could make a device and have it opened.
    """
    try:
        return detached_mount.without_devices(directory)
    except OSError as error:
        if os.geteuid() == 0 and bounding_set.has(bounding_set.MAKE_DEVICES):
            raise RestoreFailed(
                f"a storage could write to this machine's devices: no mount without them can be made here "
                f"({error.strerror})",
                hint="another directory may lie on a file system where it can",
            ) from error
        return os.dup(directory)


def path(descriptor: int) -> str:
    """Return the path by which programs started from here get at the open directory, wherever it lies meanwhile."""
    return f"/proc/{os.getpid()}/fd/{descriptor}"


@contextmanager
def mounted(place: Path) -> Iterator[str]:
    """Give the path at which rsyncd offers the directory for the length of the block. Raises OSError, RestoreFailed."""
    if os.geteuid() != 0:
        yield str(place)
        return
    drop_device_capability()
    directory = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        descriptor = open_nodev(directory)
    finally:
        os.close(directory)
    try:
        yield path(descriptor)
    finally:
        os.close(descriptor)
