"""The record of machines that this storage does not back up any more, and whose history it keeps for a while.

The coordinator names them, because only it knows that a machine was moved or removed. The record is data of the
storage: what is removed, and when, follows its own configuration and its own clock (threats C4).
"""

import logging
from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec

from turku.core import durable
from turku.errors import InvalidValue
from turku.policy import names
from turku.protocol.messages import ENDED_LIMIT, KeptHistory
from turku.storage.config.model import StorageConfig, StorageState
from turku.storage.disk import volume_marks
from turku.storage.fs import tree as fs

_FILE = "former_machines.json"
_LIMIT_BYTES = 64 * 1024 * 1024
_LATEST_SECONDS = datetime(9999, 1, 1, tzinfo=UTC).timestamp()
_LOG = logging.getLogger(__name__)


class FormerMachine(msgspec.Struct, frozen=True):
    """A machine that was moved or removed."""

    name: str
    moved: bool
    keep_until: float | None
    """Unix seconds, or None for no end."""
    is_released: bool = False
    """The operator of this storage let the whole history go."""

    def is_due(self, now: datetime) -> bool:
        """Return True if the history may go to the trash."""
        return self.is_released or (self.keep_until is not None and self.keep_until <= now.timestamp())


def read(configuration: StorageState) -> dict[str, FormerMachine]:
    """Return the former machines by UUID. A record that cannot be read has none, so that nothing is removed."""
    path = configuration.var_dir / _FILE
    try:
        content = durable.read_regular_file(path, limit_bytes=_LIMIT_BYTES)
        return msgspec.json.decode(content, type=dict[str, FormerMachine])
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        _LOG.warning("%s is of no use, so no history of a moved or removed machine ends: %s", path, error)
        return {}


def record(configuration: StorageState, told: Mapping[str, KeptHistory], admitted: Mapping[str, object]) -> None:
    """Record the machines that the coordinator names, instead of those that it named before.

    A machine that is backed up here has no former history, whatever the coordinator says. Raises DurableWriteFailed.
    """
    known = read(configuration)
    found: dict[str, FormerMachine] = {}
    for text, each in told.items():
        try:
            uuid = names.machine_uuid(text)
            keep_until = _seconds(each.keep_until)
        except (InvalidValue, ValueError) as error:
            _LOG.warning("a former machine is left out: %s", error)
            continue
        if each.moved or uuid not in admitted:
            is_released = uuid in known and known[uuid].is_released
            found[uuid] = FormerMachine(each.name, each.moved, keep_until, is_released)
    _write(configuration, known, found)


def _seconds(text: str | None) -> float | None:
    if text is None:
        return None
    moment = datetime.fromisoformat(text)
    seconds = (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
    # Within the years that have a date in every time zone, so that what a coordinator says can be shown.
    return min(max(seconds, 0.0), _LATEST_SECONDS)


def release(configuration: StorageState, uuid: str) -> None:
    """Let the whole history of a former machine go."""
    known = read(configuration)
    _write(configuration, known, {**known, uuid: msgspec.structs.replace(known[uuid], is_released=True)})


def _write(configuration: StorageState, known: Mapping[str, object], found: Mapping[str, FormerMachine]) -> None:
    if found != known:
        durable.write_json(configuration.var_dir / _FILE, msgspec.to_builtins(dict(sorted(found.items()))))


def ended(configuration: StorageConfig) -> list[str]:
    """Return the UUIDs of former machines of which nothing is left. None while a volume is missing."""
    known = read(configuration.state)
    if not known or volume_marks.faults(configuration):
        return []
    paths = [volume.path for volume in configuration.disk.volumes]
    return [uuid for uuid in known if not any(fs.exists(path / uuid) for path in paths)][:ENDED_LIMIT]
