"""The sources whose history is kept here: on which volume, of which machine; for commands of the operator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from turku.errors import LockHeld, PolicyError, UsageError
from turku.policy import names
from turku.storage import volumes
from turku.storage.configuration import Storage
from turku.storage.fs import tree as fs
from turku.storage.snapshots.place import SourcePlace

_SNAPSHOTS_SUFFIX = ".snapshots"


def kept_sources(
    configuration: Storage, *, machine: str | None = None, source: str | None = None
) -> tuple[SourcePlace, ...]:
    """The places of all sources with a snapshots directory, or of those of one machine, or of one name.

    ``machine`` is a UUID, or a name that ``var_dir/machines`` has a link of. Volumes that are not there are left out,
    with an error on the log: see ``volume_marks.require_all``. Raises UsageError when there is none.
    """
    found = tuple(
        place
        for directory in _machine_directories(configuration, machine)
        for place in _places(directory)
        if source is None or place.source == source
    )
    if not found and (machine or source):
        wanted = [f"of source {source}"] * bool(source) + [f"of machine {machine}"] * bool(machine)
        raise UsageError(f"there is no history {' '.join(wanted)}")
    return found


@contextmanager
def locked(place: SourcePlace) -> Iterator[None]:
    """Keep backups of the source out for the length of the block. Raises LockHeld while one is running."""
    try:
        with fs.locked(place.machine_dir, f".{place.source}"):
            yield
    except LockHeld as error:
        raise LockHeld(f"{place.source} of {place.machine_dir.name} is being backed up", hint=error.hint) from error


def _machine_directories(configuration: Storage, machine: str | None) -> Iterator[Path]:
    if machine is not None:
        found = volumes.existing_directory(configuration, _uuid(configuration, machine))
        if found is not None:
            yield found
        return
    for volume in volumes.usable(configuration):
        for entry in fs.names(volume.path):
            if _is_uuid(entry) and fs.is_directory(volume.path / entry):
                yield volume.path / entry


def _uuid(configuration: Storage, machine: str) -> str:
    try:
        return names.machine_uuid(machine)
    except PolicyError:
        pass
    link = configuration.machines_dir / machine
    if "/" not in machine and link.is_symlink() and _is_uuid(link.readlink().name):
        return link.readlink().name
    raise UsageError(
        f"{machine} is no machine of this storage", hint=f"a UUID, or a name out of {configuration.machines_dir}"
    )


def _is_uuid(text: str) -> bool:
    try:
        return names.machine_uuid(text) == text
    except PolicyError:
        return False


def _places(machine_dir: Path) -> Iterator[SourcePlace]:
    for entry in fs.names(machine_dir):
        if entry.endswith(_SNAPSHOTS_SUFFIX) and fs.is_directory(machine_dir / entry):
            try:
                yield SourcePlace(machine_dir, names.source_name(entry.removesuffix(_SNAPSHOTS_SUFFIX)))
            except PolicyError:
                # Nothing of ours.
                continue
