"""The volumes that ``turku-storage setup`` is told to use, and the faults that they must not have."""

import os
import re
import shlex
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from turku.core.filesystem.ownership import others_may_change
from turku.errors import ConfigurationError, UsageError
from turku.storage.disk import volume_marks
from turku.storage.fs import mounts

_NAMED: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,63})=(/.*)", re.DOTALL)
_WANTED: Final = ("nosuid", "nodev")


@dataclass(frozen=True)
class VolumeChoice:
    """A volume by name and path."""

    name: str
    path: Path


def parse(texts: Sequence[str]) -> tuple[VolumeChoice, ...]:
    """Return the volumes of ``--volume PATH`` or ``--volume NAME=PATH``. Raises UsageError."""
    choices = []
    for text in texts:
        match = _NAMED.fullmatch(text)
        path = Path(match[2] if match else text)
        name = match[1] if match else re.sub(r"[^A-Za-z0-9._-]", "-", path.name)
        if not path.is_absolute() or ".." in path.parts or not name.strip("-.") or not text.isprintable():
            raise UsageError(f"--volume {text!r} is neither an absolute path nor NAME=PATH", hint="--volume /srv/turku")
        choices.append(VolumeChoice(name, path))
    for choice in choices:
        twins = [each for each in choices if each.name == choice.name]
        if len(twins) > 1:
            paths = " and ".join(str(each.path) for each in twins)
            raise UsageError(f"two volumes have the name {choice.name}: {paths}", hint="--volume NAME=PATH names them")
    return tuple(choices)


def is_missing(path: Path) -> bool:
    """Return True if there is nothing at the path."""
    return not os.path.lexists(path)


def require_usable(choice: VolumeChoice) -> None:
    """Raise ConfigurationError for a volume that is not mounted, or in which others than root could plant links."""
    path = choice.path
    point = volume_marks.unmounted_point(path)
    if point is not None:
        raise ConfigurationError(
            f"volume {choice.name}: /etc/fstab has a file system for {point}, and it is not mounted",
            hint=f"mount {shlex.quote(str(point))}, then run this again",
        )
    for directory in (path, *path.parents):
        if is_missing(directory):
            continue
        status = directory.stat()
        if not stat.S_ISDIR(status.st_mode):
            raise ConfigurationError(f"volume {choice.name}: {directory} is not a directory")
        fix = f"chown root {shlex.quote(str(directory))} && chmod go-w {shlex.quote(str(directory))}"
        if others_may_change(status, is_sticky_enough=directory != path):
            raise ConfigurationError(
                f"volume {choice.name}: others than root may write to {directory} (user {status.st_uid}, mode "
                f"{stat.S_IMODE(status.st_mode):04o}), and could lead backups elsewhere",
                hint=fix,
            )


def is_on_root_file_system(choice: VolumeChoice) -> bool:
    """Return True if backups would fill the file system of the operating system."""
    return mounts.is_on_root_file_system(_existing(choice.path))


def advice(choice: VolumeChoice) -> list[str]:
    """Return sentences on how the volume should be mounted, with the line for /etc/fstab."""
    directory = _existing(choice.path)
    if mounts.is_on_root_file_system(directory):
        return [
            f"volume {choice.name}: {choice.path} is on the file system of the operating system. Backups can fill it, "
            "and a disk that is mounted there later hides them. Better mount a file system of its own, with a line in "
            "/etc/fstab such as:",
            f"  UUID=...  {choice.path}  ext4  defaults,nosuid,nodev  0  2",
        ]
    found = mounts.mount_of(directory)
    missing = [option for option in _WANTED if option not in found.options]
    if not missing:
        return []
    uuid = mounts.uuid_of(found.device)
    device = f"UUID={uuid}" if uuid else found.device
    return [
        f"volume {choice.name}: {found.point} is mounted without {','.join(missing)}, so that a setuid file or device "
        "of a machine would work here. Better have in /etc/fstab, and then run 'mount -o remount "
        f"{shlex.quote(str(found.point))}':",
        f"  {device}  {found.point}  {found.kind}  defaults,nosuid,nodev  0  2",
    ]


def _existing(path: Path) -> Path:
    return next(each for each in (path, *path.parents) if each.is_dir())
