"""The mount that a directory lies on, as the kernel lists it."""

import os
import re
from pathlib import Path
from typing import Final, NamedTuple

_MOUNTS: Final = Path("/proc/self/mountinfo")
_BY_UUID: Final = Path("/dev/disk/by-uuid")


class VolumeMount(NamedTuple):
    """A mounted file system."""

    point: Path
    options: frozenset[str]
    kind: str
    device: str


def mount_of(path: Path, *, mounts: Path = _MOUNTS) -> VolumeMount:
    """Return the mount that holds ``path``. Raises OSError where it cannot be read."""
    target = path.resolve(strict=True)
    # Of several mounts at one place, the last one is visible, and ``max`` returns the first one.
    holding = [mount for mount in reversed(_read(mounts)) if target.is_relative_to(mount.point)]
    return max(holding, key=lambda mount: len(mount.point.parts), default=VolumeMount(Path("/"), frozenset(), "", ""))


def is_mount_point(path: Path, *, mounts: Path = _MOUNTS) -> bool:
    """Return True if something is mounted at the path itself, also a directory of the same file system.

    Raises OSError.
    """
    return any(mount.point == path for mount in _read(mounts))


def is_on_root_file_system(path: Path) -> bool:
    """Return True if the directory is a part of the system's own file system. Raises OSError."""
    return mount_of(path).point == Path("/") or path.stat().st_dev == Path("/").stat().st_dev


def uuid_of(device: str) -> str:
    """Return the UUID of the file system on a device, or an empty text if it has none."""
    try:
        for link in _BY_UUID.iterdir():
            if os.path.realpath(link) == os.path.realpath(device):
                return link.name
    except OSError:
        pass
    return ""


def _read(mounts: Path) -> list[VolumeMount]:
    found = []
    for line in mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        before, _, after = line.partition(" - ")
        columns, (kind, device) = before.split(), [*after.split(), "", ""][:2]
        point, options = Path(unescaped(columns[4])), frozenset(columns[5].split(","))
        found.append(VolumeMount(point, options, kind, unescaped(device)))
    return found


def unescaped(text: str) -> str:
    """Return a word of a table of mounts with its octal escapes, such as that of a blank, replaced."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
