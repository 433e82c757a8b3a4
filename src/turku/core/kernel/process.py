"""The rights and the priority of this process and all programs that it starts."""

import ctypes
import os
import platform
from contextlib import suppress

MAKE_DEVICES = 27
"""The capability CAP_MKNOD (capabilities(7))."""
# <linux/prctl.h>, for the capability bounding set.
_READ, _DROP = 23, 24
_NICENESS = 19
# <asm/unistd.h>, by the kernel's name of the machine.
_IOPRIO_SET = {"x86_64": 251, "aarch64": 30, "riscv64": 30}
_THIS_PROCESS, _IDLE = 1, 3 << 13
_LIBC = ctypes.CDLL(None, use_errno=True)


def has_capability(capability: int) -> bool:
    """Return True when a program that root starts from here has the capability. Raises OSError."""
    return bool(_called(_LIBC.prctl(_READ, capability, 0, 0, 0)))


def drop_capability(capability: int) -> None:
    """Take the capability away from all programs that are started from here. Raises OSError."""
    _called(_LIBC.prctl(_DROP, capability, 0, 0, 0))


def _called(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def lower_priority() -> None:
    """Lower the priority of this process and those that it starts, where the kernel allows it."""
    with suppress(OSError):
        os.nice(_NICENESS)
    number = _IOPRIO_SET.get(platform.machine())
    if number is not None:
        # The idle class: only when nobody else wants the disk. Some disk schedulers ignore it.
        _LIBC.syscall(number, _THIS_PROCESS, 0, _IDLE)
