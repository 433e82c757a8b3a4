"""The capability bounding set of this process and all programs that it starts (capabilities(7))."""

from __future__ import annotations

import ctypes
import os

MAKE_DEVICES = 27
"""CAP_MKNOD."""
# <linux/prctl.h>
_READ, _DROP = 23, 24
_LIBC = ctypes.CDLL(None, use_errno=True)


def has(capability: int) -> bool:
    """Return True when a program that root starts from here has the capability. Raises OSError."""
    return bool(_called(_LIBC.prctl(_READ, capability, 0, 0, 0)))


def drop(capability: int) -> None:
    """Take the capability away from all programs that are started from here. Raises OSError."""
    _called(_LIBC.prctl(_DROP, capability, 0, 0, 0))


def _called(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
