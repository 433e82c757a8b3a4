"""Sources and paths of sources that are not offered to a storage. Each of them is logged with the reason.

The machine itself enforces ``one_file_system``, so that it works with every storage and coordinator. Mount points of
other file systems are backed up as empty directories, so that a restored system has them. With rsync's own option, the
content that an earlier snapshot has in them would stay for ever.
"""

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from turku.agent.capture import mounts as mount_points
from turku.agent.capture import own_paths
from turku.agent.capture.mounts import Mount
from turku.agent.config.model import AgentConfig, SourceConfig
from turku.agent.state import staging_records
from turku.core.configuration import directory as configuration_directory
from turku.policy import run_options

_SHOWN_MOUNTS = 20
STORAGE_DIRECTORY = Path("/etc/turku-storage")
_STATE_DIRECTORY = "/var/lib/turku-storage"
MARK = ".turku-volume"
"""The name of the volume mark, a file in the volume's directory."""
EXPECTS_MOUNT = "expects_mount"
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExcludedPaths:
    """Directories below a source's path that are not offered, as paths below that path."""

    hidden: tuple[Path, ...] = ()
    """Directories and files that a storage does not see."""
    emptied: tuple[Path, ...] = ()
    """Directories that a storage sees as empty."""


def stays_on_one_file_system(source: SourceConfig) -> bool:
    """Return the source's option, or the default for the directory that the source's path leads to."""
    return run_options.stays_on_one_file_system(
        os.path.realpath(source.path), source.options.get(run_options.ONE_FILE_SYSTEM)
    )


def other_file_systems(source: SourceConfig, mounts: list[Mount]) -> list[Mount]:
    """Return the file systems below the source that are not backed up with it, ordered by path."""
    if not stays_on_one_file_system(source):
        return []
    return mount_points.boundary(Path(os.path.realpath(source.path)), mounts)


def volumes_within(source: SourceConfig, mounts: list[Mount]) -> list[Path]:
    """Return the volumes of a storage on this machine that lie below the source."""
    path = Path(os.path.realpath(source.path))
    return [each for each in storage_volumes(mounts) if each != path and each.is_relative_to(path)]


def find(agent: AgentConfig, source: SourceConfig) -> ExcludedPaths:
    """Return the paths that are excluded from the source now, and log them."""
    mounts = mount_points.all_mounts()
    hidden = list(_below(source, staging_records.existing(agent.state)))
    for each in hidden:
        _LOG.warning(
            "source %s: %s is not backed up: it is the staging directory of a running or interrupted restore; the next "
            "restore into that directory uses or removes it",
            source.name,
            each,
        )
    others = other_file_systems(source, mounts)
    if others:
        _LOG.info("source %s: %s", source.name, other_file_systems_text(others))
    volumes = volumes_within(source, mounts)
    for each in volumes:
        _LOG.warning("source %s: %s is not backed up: it is a volume of the storage on this machine", source.name, each)
    emptied = {
        *_below(source, (mount.path for mount in others)),
        *_below(source, volumes),
        *_below(source, [own_paths.excluded_directory(agent)]),
    }
    for note in own_paths.notes(agent, source):
        _LOG.debug("source %s: %s", source.name, note)
    hidden += _below(source, own_paths.excluded_files(agent))
    return ExcludedPaths(tuple(hidden), tuple(sorted(emptied)))


def protected_paths(source: SourceConfig | None, target: Path) -> frozenset[bytes]:
    """Return directories of a restore's target, relative to it, whose content a restore must not touch.

    A backup has them as empty directories. Nothing in them may be deleted because the backup lacks it. ``source`` is
    None where the configuration here does not have it: another machine's, or that of a lost one that this machine
    replaces. Whether its backup crosses mounts is not known then, so nothing in them is deleted.
    """
    base = Path(os.path.realpath(target))
    mounts = mount_points.all_mounts()
    is_one = source is None or stays_on_one_file_system(source)
    found = {
        *(mount.path for mount in mount_points.boundary(base, mounts) if is_one or mount.shows_the_kernel),
        *(each for each in storage_volumes(mounts) if each != base),
    }
    return frozenset(os.fsencode(path.relative_to(base)) for path in found if path.is_relative_to(base))


def other_file_systems_text(others: list[Mount]) -> str:
    """Return a sentence that names file systems which are not backed up with the source above them.

    Those of the kernel are only counted.
    """
    kept = [mount for mount in others if not mount.is_of_the_kernel]
    shown = [f"{mount.path} ({mount.file_system})" for mount in kept[:_SHOWN_MOUNTS]]
    if len(kept) > len(shown):
        shown.append(f"{len(kept) - len(shown)} more")
    if len(others) > len(kept):
        shown.append(f"{len(others) - len(kept)} that the kernel makes, as /proc")
    return f"other file systems are not backed up with it ({run_options.ONE_FILE_SYSTEM}): {', '.join(shown)}"


def _below(source: SourceConfig, paths: Iterable[Path]) -> Iterator[Path]:
    """Yield the paths that lie below the source, rewritten to begin with the source's own path."""
    base = Path(os.path.realpath(source.path))
    for path in paths:
        found = Path(os.path.realpath(path.parent)) / path.name
        if found != base and found.is_relative_to(base):
            yield Path(source.path) / found.relative_to(base)


def storage_volumes(mounts: Iterable[Mount], storage_directory: Path = STORAGE_DIRECTORY) -> list[Path]:
    """Return the volumes of a storage that runs on this machine, in order, with symbolic links resolved.

    They contain backups, which are not backed up themselves. They are found by the storage's configuration where this
    program may read it, and by the mark in a volume's directory where that is a mount point.
    """
    found = {Path(os.path.realpath(path)) for path in _configured_volumes(storage_directory)}
    found |= {mount.path for mount in mounts if not mount.may_hang and _is_marked(mount.path)}
    return sorted(path for path in found if path.is_dir())


def _configured_volumes(directory: Path) -> list[str]:
    # Errors in it are reported by the storage's own programs.
    content = configuration_directory.read_with_state(directory, default_var_dir=_STATE_DIRECTORY).content
    volumes = content.get("volumes")
    options = volumes.values() if isinstance(volumes, dict) else ()
    configured = [each.get("path") for each in options if isinstance(each, dict)]
    return [path for path in configured if isinstance(path, str) and Path(path).is_absolute() and "\0" not in path]


def _is_marked(path: Path) -> bool:
    try:
        return (path / MARK).is_file()
    except OSError:
        return False


def is_mount_missing(source: SourceConfig) -> bool:
    """Return True where the source expects a mount and its path is not a mount point."""
    return source.options.get(EXPECTS_MOUNT) is True and not os.path.ismount(os.path.realpath(source.path))


def missing_mounts(sources: Sequence[SourceConfig]) -> dict[str, str]:
    """Return the sources that are not offered, by name, with the reasons, and log them.

    They are those with ``expects_mount`` whose disk is missing. The empty directory that a missing disk leaves would
    look as if everything had been deleted.
    """
    found = {}
    for source in sources:
        if is_mount_missing(source):
            reason = f"nothing is mounted at {source.path}, although it should be a mount point"
            found[source.name] = f"{reason} ({EXPECTS_MOUNT})"
            _LOG.error("source %s is not offered: %s", source.name, found[source.name])
    return found
