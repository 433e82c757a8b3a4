"""The running processes, as everybody sees them in /proc."""

from pathlib import Path


def command_lines() -> dict[int, bytes]:
    """Return the arguments of each process, with a NUL byte after each argument. A process may have ended since."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found[int(path.parent.name)] = path.read_bytes()
        except OSError:
            continue
    return found


def parent_of(process: int) -> int:
    """Return the parent of the process. Raises OSError if the process has ended."""
    # The name in brackets may hold anything, a bracket too.
    return int(Path("/proc", str(process), "stat").read_text().rpartition(")")[2].split()[1])
