"""Volumes: their free space, and the lookup and choice of a machine's volume (contract, "On the storage's disk")."""

import logging
import os
import secrets
from pathlib import Path

from turku.core import durable
from turku.errors import NoVolume
from turku.policy import names
from turku.storage.config.model import StorageConfig, StorageState, Volume
from turku.storage.disk import volume_marks
from turku.storage.fs import disk_usage
from turku.storage.fs import tree as fs
from turku.storage.fs.disk_usage import VolumeSpace

_MIB = 1024 * 1024
_LOG = logging.getLogger(__name__)
_RANDOM = secrets.SystemRandom()


def volume_space(volume: Volume) -> VolumeSpace | None:
    """Return the space of the volume's file system, or None, with a warning, if the directory is missing."""
    try:
        return disk_usage.volume_space(volume.path)
    except OSError as error:
        _LOG.warning("volume %s: %s cannot be read: %s", volume.name, volume.path, error.strerror)
        return None


def space(configuration: StorageConfig) -> tuple[float, float]:
    """Return total and available space of the present volumes, in MiB, and mark each at its first use.

    Volumes on one file system count once.
    """
    present = usable(configuration, marks_new=True)
    by_device = {found.device: found for volume in present if (found := volume_space(volume)) is not None}
    return (
        sum(found.total_bytes for found in by_device.values()) / _MIB,
        sum(found.available_bytes for found in by_device.values()) / _MIB,
    )


def usable(configuration: StorageConfig, *, marks_new: bool = False) -> list[Volume]:
    """Return the volumes that are present. Each missing one is an error on the log.

    With ``marks_new``, each is marked at its first use. Otherwise nothing is written.
    """
    require = volume_marks.require if marks_new else volume_marks.require_mounted
    found = []
    for volume in configuration.disk.volumes:
        try:
            require(configuration, volume)
        except NoVolume as error:
            _LOG.error("%s", error.message)
        else:
            found.append(volume)
    return found


def machine_directory(configuration: StorageConfig, uuid: str) -> Path:
    """Return the machine's directory on a volume, which is marked at its first use.

    The directory (mode 0700) and its link ``machines/<uuid>`` are made if needed.
    Raises InvalidValue if ``uuid`` is not a UUID, NoVolume if the directory's volume is missing or no volume takes new
    machines, and DurableWriteFailed.
    """
    uuid = names.machine_uuid(uuid)
    directory = existing_directory(configuration, uuid) or _make_directory(configuration, uuid)
    for volume in configuration.disk.volumes:
        if volume.path == directory.parent:
            volume_marks.require(configuration, volume)
    link_directory(configuration.state, uuid, directory)
    return directory


def existing_directory(configuration: StorageConfig, uuid: str) -> Path | None:
    """Return the machine's directory by its link, or else by a search of all volumes, or None if there is none.

    Raises NoVolume if the link leads to a missing directory or to a volume that is not the one it was.
    """
    link = configuration.state.machines_dir / names.machine_uuid(uuid)
    if link.is_symlink():
        target = link.parent / link.readlink()
        target = target.parent.resolve() / target.name
        for volume in configuration.disk.volumes:
            if volume.path == target.parent and fs.is_directory(volume.path):
                volume_marks.require_mounted(configuration, volume)
        if target.name == uuid and fs.is_directory(target):
            return target
        found = _look_on_volumes(configuration, uuid)
        if found is None:
            # A volume that is not mounted must not start a second, empty history elsewhere.
            raise NoVolume(
                f"{link} leads to {target}, which is not there",
                hint="is its volume mounted? If the history is really gone, remove the link: a new directory is made",
            )
        return found
    if link.exists():
        raise NoVolume(
            f"{link} is not a symbolic link", hint="move it to a volume; Turku finds it there and makes the link"
        )
    return _look_on_volumes(configuration, uuid)


def _look_on_volumes(configuration: StorageConfig, uuid: str) -> Path | None:
    found = []
    for volume in usable(configuration):
        directory = volume.path / uuid
        if fs.is_directory(directory):
            _refuse_planted(volume, directory)
            found.append(directory)
        elif fs.exists(directory):
            raise NoVolume(
                f"{directory} is not a directory, and nothing is followed there",
                hint="find out who put it there, and remove it",
            )
    if len(found) > 1:
        _LOG.warning(
            "machine %s has directories on several volumes (%s); the first is used", uuid, ", ".join(map(str, found))
        )
    return found[0] if found else None


def _refuse_planted(volume: Volume, directory: Path) -> None:
    """Raise NoVolume if another user put the directory there, on a volume that many may write to (N4)."""
    status, parent = fs.status(directory), fs.status(volume.path)
    trusted = {0, os.geteuid(), *([] if parent is None else [parent.st_uid])}
    if status is None or status.st_uid not in trusted:
        raise NoVolume(
            f"{directory} belongs to another user, who would see or lead astray what is written there",
            hint=f"if it is this machine's history, give it its owner back: chown {os.geteuid()} {directory}",
        )


def link_directory(configuration: StorageState, uuid: str, directory: Path) -> None:
    """Create or replace the link ``machines/<uuid>`` to ``directory``."""
    durable.make_private_directory(configuration.machines_dir)
    durable.write_symbolic_link(configuration.machines_dir / uuid, str(directory))


def choose_volume(configuration: StorageConfig) -> Volume:
    """Return a volume for a new machine.

    It is drawn by weight of free space among the volumes that accept new machines and are below their high-water mark
    (contract, "On the storage's disk"). Raises NoVolume with the reason for each volume.
    """
    weights: list[tuple[Volume, int]] = []
    reasons: list[str] = []
    for volume in configuration.disk.volumes:
        fault = volume_marks.fault(configuration, volume) if volume.accept_new else None
        found = volume_space(volume) if volume.accept_new and fault is None else None
        if not volume.accept_new:
            reasons.append(f"{volume.name}: accept_new is false")
        elif fault is not None:
            reasons.append(f"{volume.name}: {fault}")
        elif found is None:
            reasons.append(f"{volume.name}: {volume.path} is not there")
        elif found.available_bytes <= 0 or found.fullness_percent >= volume.accept_new_high_water_pct:
            kind = " of inodes" if found.inodes_used_percent > found.used_percent else ""
            reasons.append(
                f"{volume.name}: {found.fullness_percent:.0f} %{kind} used, "
                f"high-water mark {volume.accept_new_high_water_pct:g} %"
            )
        else:
            weights.append((volume, found.available_bytes))
    if not weights:
        raise NoVolume(
            "no volume takes new machines",
            details="\n".join(reasons),
            hint="add a volume, make room, or raise accept_new_high_water_pct",
        )
    return _RANDOM.choices([volume for volume, _ in weights], [weight for _, weight in weights])[0]


def _make_directory(configuration: StorageConfig, uuid: str) -> Path:
    volume = choose_volume(configuration)
    volume_marks.require(configuration, volume)
    directory = volume.path / uuid
    fs.make_directory(directory)
    _LOG.info("made %s", directory)
    return directory
