"""The running system: this host since its last boot, told from every other host and every other boot."""

from pathlib import Path
from typing import Final

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_PROCESS_IDS = Path("/proc/self/ns/pid")
_HOST_PROCESS_IDS: Final = 0xEFFFFFFC
"""Inode of the first namespace of process ids, the same on every host (proc_ns.h). Containers have others."""
_FIRST_PROCESS = Path("/proc/1/stat")
_START_TIME_FIELD = 19
"""Its place behind the name of the program, which may contain spaces (proc(5))."""


def running_system() -> str:
    """Return a text that two systems which run at the same time hardly share, and that a later boot hardly has again.

    The boot's random id tells hosts and copies of a virtual machine apart. Containers of one kernel are told apart by
    their namespace and the start of their first process, without that id: systemd 252 shows units with
    ProtectKernelTunables= the kernel's id, and everything else in the container the container's own. Parts that cannot
    be read are left out. Empty where nothing can be read.
    """
    fields = _text(_FIRST_PROCESS).rpartition(")")[2].split()
    start = fields[_START_TIME_FIELD] if len(fields) > _START_TIME_FIELD else ""
    # Without the start, a namespace's number is too little: kernels count them from the same number.
    container = _container() if start else ""
    return ".".join(filter(None, (container or _text(_BOOT), start)))[:64]


def _container() -> str:
    """Return the namespace of this container's processes. Empty on a host, or where the kernel does not say."""
    try:
        inode = _PROCESS_IDS.stat().st_ino
    except OSError:
        return ""
    return "" if inode == _HOST_PROCESS_IDS else str(inode)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
