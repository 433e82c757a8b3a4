"""The arguments of this process, as lists of processes show them to every user of the host."""

import ctypes
import os
from pathlib import Path
from typing import Final

_PROCESS: Final = Path("/proc/self")
_ARGUMENTS_BEGIN: Final = 45
"""``arg_start`` and ``arg_end`` in ``/proc/PID/stat``, counted from the field behind the name (proc(5))."""


def hide(secret: str) -> None:
    """Overwrite an argument that is a secret, so that no list of processes has it from now on.

    It was visible until now. Where the kernel does not tell the place of the arguments, nothing is done.
    """
    argument = os.fsencode(secret)
    try:
        fields = (_PROCESS / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        begin, end = int(fields[_ARGUMENTS_BEGIN]), int(fields[_ARGUMENTS_BEGIN + 1])
        shown = (_PROCESS / "cmdline").read_bytes()
    except (OSError, ValueError, IndexError):
        return
    place = shown.find(b"\0" + argument + b"\0")
    if argument and begin and len(shown) == end - begin and place >= 0:
        ctypes.memset(begin + place + 1, ord("*"), len(argument))
