"""The heartbeat of a backup session (``/v2/storage_heartbeat``)."""

from __future__ import annotations

import msgspec

from turku.protocol.messages import MachineReference, StorageCredentials

CALL = "storage_heartbeat"
HEARTBEAT_SECONDS = 60.0
"""How often a storage tells that a machine's session goes on; the coordinator waits for four of them."""


class StorageHeartbeatRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """The session of the machine goes on or, with ``ended``, is over."""

    storage: StorageCredentials
    machine: MachineReference
    ended: bool = False


class StorageHeartbeatAnswer(msgspec.Struct, frozen=True):
    """Whether the session holds a slot. One that lost its slot goes on: half a backup is of no use to anybody."""

    leased: bool
