"""Lookup of the sources whose history is kept here, by machine and name, for the operator's commands."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from turku.errors import InvalidValue, LockHeld, NotInHistory, UsageError
from turku.policy import machine_choice, names
from turku.storage.config.model import StorageConfig
from turku.storage.disk import machine_links, volume_marks, volumes
from turku.storage.disk.source_directory import SourceDirectory
from turku.storage.fs import tree as fs

_NAMED = 10
_KNOWN = 20
"""The number of known names that a hint lists."""
_SNAPSHOTS_SUFFIX = ".snapshots"


def find_sources(
    configuration: StorageConfig, *, machine: str | None = None, source: str | None = None
) -> tuple[SourceDirectory, ...]:
    """Return all sources with a snapshots directory, or those of one machine or one name.

    ``machine`` is a UUID or its beginning, a name or its end. Volumes that are missing are skipped, with an error on
    the log (see ``volume_marks.require_all``). Raises UsageError if several machines match. If nothing matches, raises
    NoVolume if a volume is missing, which may have it, and NotInHistory otherwise.
    """
    found = tuple(place for directory in _machine_directories(configuration, machine) for place in places_of(directory))
    chosen = tuple(place for place in found if source is None or place.source == source)
    if source and not chosen:
        raise no_history(configuration, source, found, machine=machine)
    if machine and not chosen:
        volume_marks.require_all(configuration)
        raise NotInHistory(f"there is no history of machine {machine}")
    return chosen


def no_history(
    configuration: StorageConfig, source: str, places: Collection[SourceDirectory], *, machine: str | None
) -> NotInHistory:
    """Return the error about a source that none of ``places`` is.

    Raises NoVolume if a volume is missing, which may have it.
    """
    if machine is None or not places:
        volume_marks.require_all(configuration)
    return NotInHistory(
        f"there is no history of source {source}" + (f" of {machine}" if machine else ""),
        hint=_known_hint({place.source for place in places}),
    )


def _known_hint(known: Collection[str]) -> str:
    return f"there is {', '.join(sorted(known)[:_KNOWN])}" if known else "nothing was backed up yet"


@contextmanager
def locked(place: SourceDirectory) -> Iterator[None]:
    """Lock the source against backups for the length of the block. Raises LockHeld while one is running."""
    try:
        with fs.locked(place.machine_dir, f".{place.source}"):
            yield
    except LockHeld as error:
        raise LockHeld(f"{place.source} of {place.machine_dir.name} is being backed up", hint=error.hint) from error


def _machine_directories(configuration: StorageConfig, machine: str | None) -> Iterator[Path]:
    if machine is not None:
        found = volumes.existing_directory(configuration, _uuid(configuration, machine))
        if found is not None:
            yield found
        return
    yield from _all_directories(configuration)


def _all_directories(configuration: StorageConfig) -> Iterator[Path]:
    for volume in volumes.usable(configuration):
        for entry in fs.names(volume.path):
            if names.is_machine_uuid(entry) and fs.is_directory(volume.path / entry):
                yield volume.path / entry


def _uuid(configuration: StorageConfig, machine: str) -> str:
    """Return the UUID of the machine that is meant.

    Raises UsageError if several match, and NoVolume or NotInHistory if none does.
    """
    try:
        return names.machine_uuid(machine)
    except InvalidValue:
        pass
    known = machine_links.known_names(configuration.state)
    kept = {directory.name: known.get(directory.name, set()) for directory in _all_directories(configuration)}
    found = machine_choice.chosen(machine, kept)
    if not found:
        volume_marks.require_all(configuration)
        known_machines = [min(names_of_one, default=uuid) for uuid, names_of_one in kept.items()]
        raise NotInHistory(f"{machine} is not a machine of this storage", hint=_known_hint(known_machines))
    if len(found) > 1:
        named = ", ".join(f"{' or '.join(sorted(kept[uuid])) or 'without a name'} ({uuid})" for uuid in found[:_NAMED])
        more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        raise UsageError(
            f"{len(found)} machines fit {machine}: {named}{more}",
            hint="name one by a longer part of its name, or by how its UUID begins",
        )
    return found[0]


def places_of(machine_dir: Path) -> Iterator[SourceDirectory]:
    """Return the sources in the directory of a machine that have a snapshots directory."""
    for entry in fs.names(machine_dir):
        if entry.endswith(_SNAPSHOTS_SUFFIX) and fs.is_directory(machine_dir / entry):
            try:
                yield SourceDirectory(machine_dir, names.source_name(entry.removesuffix(_SNAPSHOTS_SUFFIX)))
            except InvalidValue:
                # Not a directory of a source.
                continue
