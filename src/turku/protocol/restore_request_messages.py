"""Restore requests of operators: the orders to machines, and their progress reports.

Beyond the contract: ``machine.restores`` in the answer to ``agent_ping_checkin``, and ``agent_restores`` and
``agent_restore_progress`` at ``/v2``. The machine's own configuration decides if and where it runs an order.
"""

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from turku.protocol.messages import MachineCredentials, StorageAddress, Text
from turku.protocol.restore_messages import PATHS_LIMIT, Count, Overwrite, SnapshotChoice, WirePath

PROGRESS_CALL: Final = "agent_restore_progress"
WAITING_CALL: Final = "agent_restores"
MESSAGE_LIMIT: Final = 4000

Step = Literal["picked_up", "running", "postponed", "whole", "partial", "failed", "refused", "cancelled"]
"""State of a restore on its machine. ``postponed``: must be offered again later. ``refused``: forbidden by the
machine's own configuration. ``cancelled``: ended by the coordinator."""


class RestoreOrder(msgspec.Struct, frozen=True, omit_defaults=True):
    """A restore that waits for this machine. ``of_machine`` is set for a source of another machine.

    ``paths`` is required, because an empty list is the whole source.
    """

    request: Text
    source: Text
    storage: StorageAddress
    directory: Text
    overwrite: Overwrite
    paths: Annotated[list[WirePath], Meta(max_length=PATHS_LIMIT)]
    snapshot: SnapshotChoice = SnapshotChoice()
    of_machine: Text | None = None


class AgentRestoresAnswer(msgspec.Struct, frozen=True):
    """``agent_restores``: the waiting restores, for a machine whose checkin must wait for a running backup.

    The request is that of a checkin.
    """

    restores: msgspec.Raw


class AgentRestoreProgressRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """The progress of a restore. ``claim`` is a random text that identifies the run that picked it up."""

    machine: MachineCredentials
    request: Text
    claim: Annotated[str, Meta(min_length=16, max_length=64)]
    step: Step
    files: Count = 0
    size_bytes: Count = 0
    files_total: Count | None = None
    size_total_bytes: Count | None = None
    snapshot: Text | None = None
    message: Annotated[str, Meta(max_length=MESSAGE_LIMIT)] = ""


class AgentRestoreProgressAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer whether the machine continues, with the reason if not."""

    go_on: bool
    reason: Text | None = None


# --- people, through the console, with the permissions of their account


class RestoreWish(msgspec.Struct, frozen=True, omit_defaults=True):
    """``restore_request``: the wish of an operator. ``onto`` is the UUID of another machine as the target."""

    machine: Text
    source: Text
    directory: Text
    reason: Text
    onto: Text | None = None
    snapshot: Text = ""
    at: Text = ""
    paths: Annotated[list[WirePath], Meta(max_length=PATHS_LIMIT)] = []
    overwrite: Overwrite = "never"
    days: Annotated[int, Meta(ge=1, le=90)] = 7


class RestoreDecision(msgspec.Struct, frozen=True):
    """A decision on the request with that id: ``restore_request_approve``, ``_reject`` or ``_cancel``."""

    request: Text


class RestoreListRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """``restore_request_list``: the newest 200 requests, those of one machine (its UUID), also those that are over."""

    machine: Text | None = None
    with_over: bool = False
