"""Work in the background: everybody else goes first, at the disk and the processor."""

from __future__ import annotations

import ctypes
import os
import platform
from contextlib import suppress

_NICENESS = 19
# <asm/unistd.h>, by what the kernel calls the machine.
_IOPRIO_SET = {"x86_64": 251, "aarch64": 30, "riscv64": 30}
_THIS_PROCESS, _IDLE = 1, 3 << 13


def be_gentle() -> None:
    """Let others go first from now on, in this process and those it starts; where the kernel lets us."""
    with suppress(OSError):
        os.nice(_NICENESS)
    number = _IOPRIO_SET.get(platform.machine())
    if number is not None:
        # Only when nobody else wants the disk, where its scheduler knows of that; else it changes nothing.
        ctypes.CDLL(None).syscall(number, _THIS_PROCESS, 0, _IDLE)
