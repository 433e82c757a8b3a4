"""The faults of a storage that its coordinator is told, each with a kind."""

from dataclasses import dataclass
from typing import Final

import msgspec

from turku.core import durable
from turku.errors import DurableWriteFailed
from turku.protocol.messages import FAULT_FULL, FAULT_KINDS, FAULT_OTHER, FAULT_UNMOUNTED
from turku.storage.config.model import StorageConfig, StorageState
from turku.storage.disk import volume_marks, volumes
from turku.storage.registration import key_removal

_CONTAINMENT_FILE: Final = "containment_fault.json"
_LIMIT_BYTES: Final = 64 * 1024


@dataclass(frozen=True)
class StorageFault:
    """A sentence about something that is wrong with this storage. ``kind`` is one of the protocol's."""

    kind: str
    text: str


def found(configuration: StorageConfig) -> list[StorageFault]:
    """Return all faults, those of the worst kind first. The clock is compared by the coordinator.

    A sentence has no figure that changes from report to report, because each change is logged by the coordinator.
    """
    faults = [StorageFault(FAULT_UNMOUNTED, text) for text in volume_marks.faults(configuration)]
    faults += [StorageFault(FAULT_FULL, text) for text in _full_volumes(configuration)]
    others = (key_removal.fault(configuration.state), _containment_fault(configuration.state))
    faults += [StorageFault(FAULT_OTHER, text) for text in others if text is not None]
    return sorted(faults, key=lambda fault: (*FAULT_KINDS, FAULT_OTHER).index(fault.kind))


def _full_volumes(configuration: StorageConfig) -> list[str]:
    """Return a sentence about each present volume below the low-water mark, at which no backup begins."""
    low_water = configuration.disk.low_water_free_pct
    sentences = []
    for volume in configuration.disk.volumes:
        space = None if volume_marks.fault(configuration, volume) else volumes.volume_space(volume)
        if space is not None and space.free_percent < low_water:
            scarce = "inodes" if space.inodes_used_percent > space.used_percent else "space"
            sentences.append(
                f"volume {volume.name} is full: less than {low_water:g} % of its {scarce} is free "
                "(low_water_free_pct), so no backup begins there"
            )
    return sentences


def note_containment(configuration: StorageState, fault: str | None) -> None:
    """Keep the fault of the sandbox that a session found, or None where there is none any more.

    The timer's run that reports faults is confined itself, so it cannot try the sandbox.
    """
    if fault == _containment_fault(configuration):
        return
    path = configuration.var_dir / _CONTAINMENT_FILE
    try:
        if fault is None:
            path.unlink(missing_ok=True)
        else:
            durable.write_json(path, {"fault": fault})
    except (OSError, DurableWriteFailed):
        # A full disk has a fault of its own.
        return


def _containment_fault(configuration: StorageState) -> str | None:
    try:
        content = durable.read_regular_file(configuration.var_dir / _CONTAINMENT_FILE, limit_bytes=_LIMIT_BYTES)
        return msgspec.json.decode(content, type=dict[str, str])["fault"]
    except (OSError, msgspec.MsgspecError, ValueError, KeyError):
        return None
