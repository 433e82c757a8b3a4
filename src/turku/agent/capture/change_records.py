"""Change records: per storage and source, the last session that ended well.

A record has the moment of the session and the paths of all directories (``changed_entries.py``). Change times can be
compared with the moment as long as nobody sets the clock and the system is not rebooted. A booting system may give
entries any change time before its clock is right, and another system may have changed its disks before that.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from turku.agent.config.model import AgentState
from turku.agent.state import var_dir
from turku.core import clock, durable
from turku.core.clock import SYSTEM_CLOCK, Clock
from turku.errors import TurkuError

_DIRECTORY = "changed_entries"
_LIMIT_BYTES = 64 * 1024 * 1024
_CLOCK_TOLERANCE_NS = 1_000_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_LOG = logging.getLogger(__name__)


class Moment(msgspec.Struct, frozen=True):
    """A moment by two clocks: one that can be set, and one that runs from the boot of the system."""

    unix_ns: int
    boot_id: str
    boot_ns: int

    def follows(self, earlier: Moment) -> bool:
        """Return True where the clock ran from the earlier moment to this one and nobody set it meanwhile."""
        passed_ns = self.boot_ns - earlier.boot_ns
        was_set_by_ns = self.unix_ns - earlier.unix_ns - passed_ns
        return (
            bool(self.boot_id)
            and self.boot_id == earlier.boot_id
            and passed_ns > 0
            and self.unix_ns > earlier.unix_ns
            and abs(was_set_by_ns) <= _CLOCK_TOLERANCE_NS
        )


def moment_of(source_of_time: Clock = SYSTEM_CLOCK, *, boot_id: Path = _BOOT_ID) -> Moment:
    """Return the present moment. No moment follows it where the kernel does not report the boot's ID."""
    try:
        start = boot_id.read_text(encoding="ascii").strip()
    except (OSError, UnicodeError):
        start = ""
    unix_ns = (source_of_time.now() - _EPOCH) // timedelta(microseconds=1) * 1000
    return Moment(max(0, unix_ns), start, clock.boot_nanoseconds())


class SourceRecord(msgspec.Struct, frozen=True):
    """The record of a source with this path."""

    path: str
    moment: Moment
    directories: bytes
    """The content of a ``changed_entries.DirectoryDigests``."""


def read(configuration: AgentState, storage_name: str) -> dict[str, SourceRecord]:
    """Return the records of the sources for a storage by name, or none where the file is damaged."""
    path = configuration.var_dir / _DIRECTORY / f"{storage_name}.json"
    try:
        content = durable.read_regular_file(path, limit_bytes=_LIMIT_BYTES)
        return msgspec.json.decode(content, type=dict[str, SourceRecord])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.MsgspecError, UnicodeError) as error:
        _LOG.warning(
            "cannot read %s, which is replaced: %s; storages compare all attributes of the next backups", path, error
        )
        return {}


def write(configuration: AgentState, storage_name: str, records: Mapping[str, SourceRecord]) -> None:
    """Replace the records of a storage. A failure is only logged, because the next backups just take longer."""
    try:
        path = var_dir.directory(configuration, _DIRECTORY) / f"{storage_name}.json"
        var_dir.write_text(configuration, path, msgspec.json.encode(dict(records)).decode())
    except (OSError, TurkuError) as error:
        _LOG.warning(
            "cannot record the session with storage %s: %s; it will compare all attributes next time",
            storage_name,
            error,
        )
