"""The volumes of a storage that runs on this machine. They contain backups, which are not backed up themselves.

They are found by the storage's configuration where this program may read it, and by the mark in a volume's directory
where that is a mount point.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from turku.agent.capture.mounts import Mount
from turku.core.configuration import directory as configuration

STORAGE_DIRECTORY = Path("/etc/turku-storage")
_STATE_DIRECTORY = "/var/lib/turku-storage"
MARK = ".turku-volume"
"""The name of the volume mark, a file in the volume's directory."""


def paths(mounts: Iterable[Mount], storage_directory: Path = STORAGE_DIRECTORY) -> list[Path]:
    """Return the directories of all known volumes in order, with symbolic links resolved."""
    found = {Path(os.path.realpath(path)) for path in _configured(storage_directory)}
    found |= {mount.path for mount in mounts if not mount.may_hang and _is_marked(mount.path)}
    return sorted(path for path in found if path.is_dir())


def _configured(directory: Path) -> list[str]:
    # Errors in it are reported by the storage's own programs.
    content = configuration.read_with_state(directory, default_var_dir=_STATE_DIRECTORY).content
    volumes = content.get("volumes")
    options = volumes.values() if isinstance(volumes, dict) else ()
    configured = [each.get("path") for each in options if isinstance(each, dict)]
    return [path for path in configured if isinstance(path, str) and Path(path).is_absolute() and "\0" not in path]


def _is_marked(path: Path) -> bool:
    try:
        return (path / MARK).is_file()
    except OSError:
        return False
