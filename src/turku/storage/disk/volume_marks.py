"""The mark of a volume: a file that tells a mounted volume from its empty mount point.

``<volume>/.turku-volume`` has an id, which is drawn when the volume is first used, and ``var_dir/volumes`` remembers
it. A directory without the remembered mark is not the volume: nothing is read there or written to, whatever else it
contains. An operator who replaced the volume runs ``turku-storage accept-volume``.
"""

import errno
import json
import logging
import os
import shlex
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import quote

from turku.core import durable
from turku.errors import ConfigurationError, DurableWriteFailed, NoVolume
from turku.policy import names
from turku.storage.config.model import DiskConfig, StorageConfig, StorageState, Volume
from turku.storage.fs import mounts
from turku.storage.fs import tree as fs

FILE: Final = ".turku-volume"
_REMEMBERED: Final = "volumes"
_UNKNOWN: Final = ""
"""The value in place of an id that was known and is lost."""
_LIMIT_BYTES: Final = 4096
_TABLE: Final = Path("/etc/fstab")
_TABLE_LIMIT_BYTES: Final = 1024 * 1024
_LOG = logging.getLogger(__name__)


def fault(configuration: StorageConfig, volume: Volume) -> str | None:  # noqa: PLR0911  (one return for each fault)
    """Return the fault at the volume's path, or None if it is the volume or may become it. Nothing is written."""
    try:
        found, known = _mark(volume), _remembered(configuration.state, volume)
    except FileNotFoundError:
        return f"{volume.path} is not there"
    except OSError as error:
        return f"{error.filename or volume.path}: {error.strerror or error}"
    except ValueError as error:
        return f"{volume.path / FILE} is damaged: {error}"
    if found is None and known is None:
        return _refusal_of_first_use(configuration.state, volume)
    if found is None:
        return f"{volume.path} lacks the mark {FILE} of this volume: it is not mounted, or it was replaced"
    if known not in (None, _UNKNOWN, found):
        return f"{volume.path} has the mark of another volume"
    return _twin(configuration.disk, volume, found)


def faults(configuration: StorageConfig) -> list[str]:
    """Return the faults of all volumes, a sentence each."""
    return [f"volume {volume.name}: {text}" for volume, text in _missing(configuration)]


def require_all(configuration: StorageConfig) -> None:
    """Raise NoVolume if any volume is missing. Called after the work on the other volumes is done."""
    missing = _missing(configuration)
    if missing:
        first, *others = (f"volume {volume.name}: {text}" for volume, text in missing)
        raise NoVolume(first, details="\n".join(others), hint=_hint(missing[0][0]))


def require_mounted(configuration: StorageConfig, volume: Volume) -> None:
    """Raise NoVolume if the volume is not mounted at its path. Nothing is written."""
    text = fault(configuration, volume)
    if text is not None:
        raise NoVolume(f"volume {volume.name}: {text}", hint=_hint(volume))


def require(configuration: StorageConfig, volume: Volume) -> None:
    """Mark the volume if this is its first use. Raises NoVolume if it is not mounted at its path."""
    require_mounted(configuration, volume)
    try:
        if _remembered(configuration.state, volume) in (None, _UNKNOWN):
            _adopt(configuration.state, volume)
    except (OSError, ValueError, DurableWriteFailed) as error:
        # The volume is full, or its own directory is root's. It is used all the same.
        _LOG.warning("volume %s: %s cannot be marked: %s", volume.name, volume.path, error)


def accept(configuration: StorageConfig, name: str) -> str:
    """Accept what lies at the path of the volume ``name`` as that volume from now on, and return the path.

    Raises ConfigurationError if there is no such volume, NoVolume if its path is not a directory.
    """
    volume = next((each for each in configuration.disk.volumes if each.name == name), None)
    if volume is None:
        known = ", ".join(each.name for each in configuration.disk.volumes)
        raise ConfigurationError(f"there is no volume {name!r} in the configuration", hint=f"there is {known}")
    if not fs.is_directory(volume.path):
        raise NoVolume(f"volume {name}: {volume.path} is not there", hint="is its file system mounted?")
    with suppress(OSError, ValueError):
        found = _mark(volume)
        if found is not None and _twin(configuration.disk, volume, found) is None:
            _remember(configuration.state, volume, found)
            return str(volume.path)
    _remember(configuration.state, volume, _write(volume, replaces=True))
    return str(volume.path)


def _missing(configuration: StorageConfig) -> list[tuple[Volume, str]]:
    """Return the volumes that are missing, each with its fault."""
    found = ((volume, fault(configuration, volume)) for volume in configuration.disk.volumes)
    return [(volume, text) for volume, text in found if text is not None]


def _hint(volume: Volume) -> str:
    return (
        "mount its file system; if what lies there now is to be this volume from now on (a new disk, a restored one), "
        f"run: turku-storage accept-volume {shlex.quote(volume.name)} (on the storage)"
    )


def _adopt(configuration: StorageState, volume: Volume) -> None:
    found = _mark(volume)
    if found is None:
        found = _write(volume)
        _LOG.info("volume %s: %s is marked as this volume, with the file %s", volume.name, volume.path, FILE)
    _remember(configuration, volume, found)


def _mark(volume: Volume) -> str | None:
    """Return the id at the volume's path, or None if there is no mark.

    Raises OSError, and ValueError for a damaged mark.
    """
    # A path that is not a directory raises, and does not count as one without a mark.
    with fs.opened(volume.path):
        pass
    try:
        content = fs.read_file(volume.path / FILE, limit_bytes=_LIMIT_BYTES)
    except FileNotFoundError:
        return None
    return _id(content)


def _id(content: bytes) -> str:
    try:
        return str(uuid.UUID(json.loads(content)["id"]))
    except (ValueError, TypeError, KeyError, AttributeError):
        raise ValueError("it has no id") from None


def _write(volume: Volume, *, replaces: bool = False) -> str:
    """Return the id of the mark just made at the volume's path.

    If several processes make one at once, the first one's mark counts.
    """
    new = str(uuid.uuid4())
    content = durable.json_bytes({"id": new, "note": "Turku's mark of this volume; see turku-storage accept-volume"})
    path = volume.path / FILE
    if replaces:
        fs.write_bytes(path, content)
        return new
    temporary = path.with_name(f"{FILE}.{new}")
    fs.write_bytes(temporary, content)
    try:
        fs.hard_link(temporary, path)
    except FileExistsError:
        pass
    except OSError:
        # A file system without hard links.
        fs.rename(temporary, path)
    finally:
        fs.unlink(temporary)
    with fs.opened(volume.path) as directory:
        os.fsync(directory)
    return _id(fs.read_file(path, limit_bytes=_LIMIT_BYTES))


def _file(configuration: StorageState, volume: Volume) -> Path:
    return configuration.var_dir / _REMEMBERED / f"{quote(volume.name, safe='')}.json"


def _remembered(configuration: StorageState, volume: Volume) -> str | None:
    """Return the remembered id of the volume, or None if none is known, and ``_UNKNOWN`` if the record is damaged."""
    path = _file(configuration, volume)
    try:
        return _id(durable.read_regular_file(path, limit_bytes=_LIMIT_BYTES))
    except FileNotFoundError:
        return None
    except ValueError:
        _LOG.warning("%s is damaged; the volume is known by the mark that it has", path)
        return _UNKNOWN


def _remember(configuration: StorageState, volume: Volume, found: str) -> None:
    path = _file(configuration, volume)
    durable.make_private_directory(path.parent)
    durable.write_json(path, {"id": found, "path": str(volume.path)})


def _twin(configuration: DiskConfig, volume: Volume, found: str) -> str | None:
    """Return the fault if another volume of the configuration has the same mark. One of the two is then a copy."""
    for other in configuration.volumes:
        if other.name == volume.name or _is_same_directory(other.path, volume.path):
            continue
        with suppress(OSError, ValueError):
            if _mark(other) == found:
                return f"{volume.path} has the same mark as volume {other.name}, {other.path}: one is a copy"
    return None


def _is_same_directory(first: Path, second: Path) -> bool:
    statuses = [fs.status(path) for path in (first, second)]
    return None not in statuses and len({(each.st_dev, each.st_ino) for each in statuses if each is not None}) == 1


def _refusal_of_first_use(configuration: StorageState, volume: Volume) -> str | None:
    """Return the reason not to make an unmarked directory the volume, or None if there is none.

    A directory of an older installation contains machines already, so it is evidently the volume. No other one has its
    links.
    """
    led_to = _linked_machines(configuration, volume)
    there = [each for each in led_to if fs.is_directory(volume.path / each)]
    if len(there) * 2 < len(led_to):
        return (
            f"{volume.path} lacks {len(led_to) - len(there)} of the {len(led_to)} machines that "
            f"{configuration.machines_dir} has links to there: it is not mounted, or it was replaced"
        )
    if not there and not any(names.is_machine_uuid(name) for name in fs.names(volume.path)):
        point = unmounted_point(volume.path)
        if point is not None:
            return f"{_TABLE} has a file system for {point} that is not mounted"
    return None


def _linked_machines(configuration: StorageState, volume: Volume) -> Sequence[str]:
    """Return the machines whose links in ``var_dir/machines`` lead to the volume's path."""
    try:
        links = list(configuration.machines_dir.iterdir())
    except FileNotFoundError:
        return []
    found = []
    for link in links:
        with suppress(OSError):
            target = link.parent / link.readlink()
            if names.is_machine_uuid(link.name) and target.name == link.name and target.parent.resolve() == volume.path:
                found.append(link.name)
    return found


def unmounted_point(path: Path) -> Path | None:
    """Return the mount point of /etc/fstab, at the path or above it, at which nothing is mounted. None if none is."""
    try:
        table = durable.read_regular_file(_TABLE, limit_bytes=_TABLE_LIMIT_BYTES)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EACCES, errno.EINVAL):
            raise
        return None
    lines = map(str.split, table.decode("utf-8", "replace").splitlines())
    points = {mounts.unescaped(words[1]) for words in lines if len(words) > 1 and not words[0].startswith("#")}
    declared = (each for each in (path, *path.parents) if str(each) in points)
    return next((each for each in declared if not mounts.is_mount_point(each)), None)
