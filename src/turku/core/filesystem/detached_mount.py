"""A detached mount of a directory, in which no device can be opened, whatever root creates in it.

The mount is not in the tree of mounts. Only its descriptor leads to it, and it ends with the descriptor. The calls need
Linux 5.12 and CAP_SYS_ADMIN.
"""

import ctypes
import os
import struct

# <linux/mount.h>. The numbers are the same on every architecture that Debian has.
_OPEN_TREE, _MOUNT_SETATTR = 428, 442
_CLONE = 0x1
_AT_EMPTY_PATH = 0x1000
_NO_SET_USER_ID, _NO_DEVICES, _NO_PROGRAMS = 0x2, 0x4, 0x8
_ATTRIBUTES = struct.Struct("=QQQQ")
"""struct mount_attr: attributes to set, attributes to clear, propagation, user namespace."""
_LIBC = ctypes.CDLL(None, use_errno=True)


def without_devices(directory: int) -> int:
    """Return a descriptor of the open directory below which no device can be opened and no program started.

    Raises OSError where this host or its user's rights do not allow it.
    """
    descriptor = _called(_LIBC.syscall(_OPEN_TREE, directory, b"", _CLONE | os.O_CLOEXEC | _AT_EMPTY_PATH))
    try:
        attributes = _ATTRIBUTES.pack(_NO_SET_USER_ID | _NO_DEVICES | _NO_PROGRAMS, 0, 0, 0)
        _called(_LIBC.syscall(_MOUNT_SETATTR, descriptor, b"", _AT_EMPTY_PATH, attributes, len(attributes)))
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def is_available() -> bool:
    """Return True when this host and its user's rights allow such mounts."""
    directory = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.close(without_devices(directory))
    except OSError:
        return False
    finally:
        os.close(directory)
    return True


def _called(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
