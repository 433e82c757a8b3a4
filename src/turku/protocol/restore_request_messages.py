"""Restores that were asked for at the coordinator: how a machine learns of one, and what it tells of it.

Beyond the contract: ``machine.restores`` in the answer to ``agent_ping_checkin``, and at ``/v2`` ``agent_restores`` and
``agent_restore_progress``.
An order is the coordinator's word: the machine's own configuration says whether, and where, it is obeyed.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from turku.protocol.messages import MachineCredentials, StorageAddress, Text
from turku.protocol.restore_messages import PATHS_LIMIT, Count, SnapshotChoice, WirePath

PROGRESS_CALL: Final = "agent_restore_progress"
WAITING_CALL: Final = "agent_restores"
MESSAGE_LIMIT: Final = 4000

Overwrite = Literal["never", "older", "always"]
Step = Literal["picked_up", "running", "postponed", "whole", "partial", "failed", "refused", "cancelled"]
"""What a machine tells of a restore. ``postponed``: not now, it is to be offered again; ``refused``: the machine's own
configuration forbids it; ``cancelled``: ended because the coordinator said so."""


class RestoreOrder(msgspec.Struct, frozen=True, omit_defaults=True):
    """A restore that waits for this machine; ``of_machine`` is set where the source is another machine's.

    ``paths`` is required, as none are all of the source.
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
    """``agent_restores``: what the answer to a check-in has under that name, for a machine whose check-in has to wait
    because a backup is running. The request is that of a check-in."""

    restores: msgspec.Raw


class AgentRestoreProgressRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a restore goes. ``claim`` is drawn by the run that picks it up, and proves to be that run."""

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
    """Whether the machine is to go on; if not, why."""

    go_on: bool
    reason: Text | None = None


# --- people, through the console: with their session, and the permissions of their account


class RestoreWish(msgspec.Struct, frozen=True, omit_defaults=True):
    """``restore_request``: what an operator asks for. ``onto``: another machine's UUID, left out for the same one."""

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
    """``restore_request_approve``, ``_reject`` and ``_cancel``: of the request with that id."""

    request: Text


class RestoreListRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """``restore_request_list``: the newest, at most 200; of one machine (its UUID), with those that are over."""

    machine: Text | None = None
    with_over: bool = False
