"""Reports of a storage on the machines that it knows (``/v2/storage_known_machines``), for a coordinator that lost all.

A storage sends them when its operator says so, and a coordinator takes them for as long as its own operator allows it.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from turku.protocol.messages import StorageCredentials, Text

CALL = "storage_known_machines"
MACHINES_LIMIT = 50
"""Machines in one report. A storage sends more of them in several reports."""


class KnownSource(msgspec.Struct, frozen=True, omit_defaults=True):
    """A source with the options of its last order, as a machine declares them, and the time of its newest snapshot."""

    options: dict[str, Any] = {}
    """Empty if they are not known. The source then exists again when its machine declares it."""
    newest_snapshot: Annotated[float, Meta(ge=0, le=4e9)] | None = None
    """Unix seconds."""


class KnownMachine(msgspec.Struct, frozen=True, omit_defaults=True):
    """A machine with history on the storage. A text that is empty is not known."""

    sources: dict[str, KnownSource] = {}
    environment_name: Text = ""
    service_name: Text = ""
    unit_name: Text = ""
    comment: Text = ""
    ssh_public_key: Text = ""


class StorageKnownMachinesRequest(msgspec.Struct, frozen=True):
    """The machines, by UUID."""

    storage: StorageCredentials
    machines: Annotated[dict[str, KnownMachine], Meta(max_length=MACHINES_LIMIT)]


Outcome = Literal["recovered", "known", "claimed", "refused"]
"""``known``: the coordinator had it already, and changed nothing. ``claimed``: another storage reported it as well, and
an operator must decide."""


class MachineOutcome(msgspec.Struct, frozen=True, omit_defaults=True):
    outcome: Outcome
    detail: str = ""


class StorageKnownMachinesAnswer(msgspec.Struct, frozen=True):
    machines: dict[str, MachineOutcome]
