"""The knowledge of this storage about its machines, for a coordinator that lost its database.

Names and keys are those of the coordinator's last answer that had the machine, kept for as long as there is history.
"""

import json
import logging
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path

import msgspec

from turku.core import durable
from turku.errors import InvalidValue, TurkuError
from turku.policy import names
from turku.protocol.messages import AssignedMachine
from turku.protocol.recovery_messages import KnownMachine, KnownSource
from turku.storage.config.model import StorageConfig, StorageState
from turku.storage.disk import history, machine_links, retention_rules, source_lookup, volumes
from turku.storage.disk.source_directory import SourceDirectory
from turku.storage.fs import tree as fs

FILE = "known_machines.json"
_LIMIT_BYTES = 256 * 1024 * 1024
_LOG = logging.getLogger(__name__)


def remember(configuration: StorageConfig, assigned: Mapping[str, AssignedMachine]) -> None:
    """Record the assigned machines, and keep the record of others that still have a directory here."""
    before = _recorded(configuration.state)
    gone = before.keys() - assigned.keys()
    present = _present(configuration) if gone else set()
    after = {**{uuid: before[uuid] for uuid in gone if uuid in present}, **assigned}
    if after != before:
        content = msgspec.to_builtins(dict(sorted(after.items())))
        durable.write_json(configuration.state.var_dir / FILE, content)


def gather(configuration: StorageConfig, *, now: datetime) -> dict[str, KnownMachine]:
    """Return every machine with a directory on a volume, by UUID."""
    recorded, linked = _recorded(configuration.state), machine_links.known_names(configuration.state)
    found = {}
    for uuid in sorted(_present(configuration)):
        try:
            places = source_lookup.find_sources(configuration, machine=uuid)
        except TurkuError:
            # It has no snapshot yet.
            places = ()
        machine = recorded.get(uuid)
        # Of a machine that no answer has named, only the link has a name, in which the parts are joined.
        unit = min(linked.get(uuid, {""})) if machine is None else machine.unit_name or ""
        found[uuid] = KnownMachine(
            sources={place.source: _source(configuration, place, now=now) for place in places},
            environment_name="" if machine is None else machine.environment_name or "",
            service_name="" if machine is None else machine.service_name or "",
            unit_name=unit,
            comment="" if machine is None else machine.comment or "",
            ssh_public_key="" if machine is None else machine.ssh_public_key or "",
        )
    return found


def parts(machines: Mapping[str, KnownMachine], size: int) -> Iterable[dict[str, KnownMachine]]:
    """Yield the machines in parts of at most ``size``."""
    listed = list(machines.items())
    for begin in range(0, len(listed), size):
        yield dict(listed[begin : begin + size])


def _source(configuration: StorageConfig, place: SourceDirectory, *, now: datetime) -> KnownSource:
    newest = history.newest(place, configuration.state.timezone, now=now)
    return KnownSource(
        options=retention_rules.last_options(place),
        newest_snapshot=None if newest is None or newest.moment is None else newest.moment.timestamp(),
    )


def _present(configuration: StorageConfig) -> set[str]:
    return {
        name
        for volume in volumes.usable(configuration)
        for name in fs.names(volume.path)
        if names.is_machine_uuid(name) and fs.is_directory(volume.path / name)
    }


def _recorded(configuration: StorageState) -> dict[str, AssignedMachine]:
    path: Path = configuration.var_dir / FILE
    try:
        content = json.loads(durable.read_regular_file(path, limit_bytes=_LIMIT_BYTES))
        return msgspec.convert(content, dict[str, AssignedMachine])
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError, msgspec.MsgspecError, InvalidValue) as error:
        _LOG.warning("%s cannot be read, and is written anew: %s", path, error)
        return {}
