"""A mount without devices (``nodev``) for a directory that a storage may write to by way of our rsyncd.

A restore brings device files back, so rsyncd creates the device files that it is sent. rsyncd opens files by name and
writes to whatever has that name at that moment, so a storage could put a disk there. Root therefore offers the
directory through a mount that opens no devices. Where such a mount is impossible, rsyncd creates no device files.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from turku.core.filesystem import detached_mount
from turku.core.kernel import process
from turku.errors import RestoreFailed

_LOG = logging.getLogger(__name__)


def drop_device_capability() -> None:
    """Drop CAP_MKNOD where no mount without devices can be made. Call this before rsyncd is started."""
    if os.geteuid() != 0 or detached_mount.is_available() or not process.has_capability(process.MAKE_DEVICES):
        return
    try:
        process.drop_capability(process.MAKE_DEVICES)
    except OSError as error:
        # ``open_nodev`` then refuses to offer anything.
        _LOG.debug("CAP_MKNOD cannot be dropped: %s", error.strerror)
    else:
        _LOG.warning("no device files are restored, because no mount without devices can be made here")


def open_nodev(directory: int) -> int:
    """Return a descriptor of the open directory through which no device can be opened and nothing be moved out.

    Raises RestoreFailed where rsyncd could create a device and open it.
    """
    try:
        return detached_mount.without_devices(directory)
    except OSError as error:
        if os.geteuid() == 0 and process.has_capability(process.MAKE_DEVICES):
            raise RestoreFailed(
                f"a storage could write to this machine's devices: no mount without devices can be made here "
                f"({error.strerror})",
                hint="choose a directory on another file system",
            ) from error
        return os.dup(directory)


def path(descriptor: int) -> str:
    """Return the path by which child processes reach the open directory, wherever it is moved to."""
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
