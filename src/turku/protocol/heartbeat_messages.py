"""The heartbeat of a backup session (``/v2/storage_heartbeat``)."""

from __future__ import annotations

import msgspec

from turku.protocol.messages import MachineReference, StorageCredentials

CALL = "storage_heartbeat"
HEARTBEAT_SECONDS = 60.0
"""Time between two heartbeats. The coordinator waits for four of them."""


class StorageHeartbeatRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """The report that the session of the machine continues or, with ``ended``, is over."""

    storage: StorageCredentials
    machine: MachineReference
    ended: bool = False


class StorageHeartbeatAnswer(msgspec.Struct, frozen=True):
    """The answer whether the session holds a slot. A session that lost its slot continues, to finish its backup."""

    leased: bool
