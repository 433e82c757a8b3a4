"""Low priority for background work, at the disk and the processor."""

from __future__ import annotations

import ctypes
import os
import platform
from contextlib import suppress

_NICENESS = 19
# <asm/unistd.h>, by the kernel's name of the machine.
_IOPRIO_SET = {"x86_64": 251, "aarch64": 30, "riscv64": 30}
_THIS_PROCESS, _IDLE = 1, 3 << 13


def lower_priority() -> None:
    """Lower the priority of this process and those that it starts, where the kernel allows it."""
    with suppress(OSError):
        os.nice(_NICENESS)
    number = _IOPRIO_SET.get(platform.machine())
    if number is not None:
        # The idle class: only when nobody else wants the disk. Some disk schedulers ignore it.
        ctypes.CDLL(None).syscall(number, _THIS_PROCESS, 0, _IDLE)
