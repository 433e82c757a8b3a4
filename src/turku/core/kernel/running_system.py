"""The running system: this host since its last boot, told from every other host and every other boot."""

from pathlib import Path

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_FIRST_PROCESS = Path("/proc/1/stat")
_START_TIME_FIELD = 19
"""Its place behind the name of the program, which may contain spaces (proc(5))."""


def running_system() -> str:
    """Return a text that two systems which run at the same time do not share, and that no later boot has again.

    The boot's random id tells copies of a virtual machine apart, and the start of the first process tells containers of
    one kernel apart. What cannot be read is left out. Empty where nothing can be read.
    """
    fields = _text(_FIRST_PROCESS).rpartition(")")[2].split()
    start = fields[_START_TIME_FIELD] if len(fields) > _START_TIME_FIELD else ""
    return ".".join(filter(None, (_text(_BOOT), start)))[:64]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
