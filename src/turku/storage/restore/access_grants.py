"""May this machine see what is kept here, or have it back? The coordinator says so; this storage can say no before."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Literal

from turku.core.log import one_line
from turku.errors import ApiNotFound, NotInHistory
from turku.policy import names
from turku.protocol.messages import MachineReference, StorageCredentials
from turku.protocol.restore_messages import (
    SnapshotChoice,
    StorageAccessAnswer,
    StorageAccessRequest,
    path_bytes,
)
from turku.storage.config.model import StorageConfig
from turku.storage.registration.coordinator import Coordinator

_CALL = "storage_access_request"
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class AccessRequest:
    """Who wants what; every name in it is still as the machine sent it, but for its own UUID."""

    machine: str
    action: Literal["browse", "restore"]
    source: str
    of_machine: str | None = None
    request: str | None = None


@dataclass(frozen=True)
class AccessGrant:
    """The machine and the source whose history may be shown or handed out, as lawful names.

    ``history_view.HistoryView`` makes of it what there is to be seen; nobody else reads its fields.
    """

    machine: str
    source: str
    request: AccessRequest
    paths: frozenset[bytes] = frozenset()
    """These and what is below them; empty for all."""
    snapshot: SnapshotChoice | None = None
    """The one snapshot, as it was chosen when it was approved; None for all snapshots."""
    resolved: str | None = None
    """The name that this choice stands for; None where nobody has used the permission yet."""


def require(configuration: StorageConfig, wanted: AccessRequest) -> AccessGrant:
    """Return what may be shown or handed out.

    Another machine's history takes the coordinator's word. A coordinator of the existing system knows no such call: a
    machine then has its own, as it has with every coordinator where ``machines_see_history`` is not false.
    Raises NotInHistory where it may not, InvalidValue for what is no name, ApiRefused, ApiUnreachable.
    """
    source = names.source_name(wanted.source)
    owner = names.machine_uuid(wanted.of_machine) if wanted.of_machine else wanted.machine
    if not configuration.sessions.machines_see_history:
        # Not even where the coordinator would let it: a hostile one must not have history handed out (threats C4).
        raise NotInHistory(
            f"storage {configuration.identity.name} shows no history to machines (machines_see_history)",
            hint="an operator of the storage can restore: turku-agent-ping --restore",
        )
    is_own = owner == wanted.machine
    lawful = replace(wanted, source=source, of_machine=None if is_own else owner)
    answer = _ask(configuration, lawful, is_own=is_own)
    paths = frozenset(names.path_inside(path_bytes(path)) for path in answer.paths)
    snapshot = answer.snapshot
    if snapshot is None and not (is_own and wanted.request is None):
        # A coordinator that names none for a request means the latest, and no other one.
        snapshot = SnapshotChoice()
    return AccessGrant(owner, source, lawful, frozenset() if b"" in paths else paths, snapshot, answer.resolved)


def fix_snapshot(configuration: StorageConfig, permitted: AccessGrant, name: str) -> str:
    """Return the name of the snapshot that the permission is for from now on.

    ``name`` is what its choice means now. The coordinator remembers the first name that it is told, so that a later
    session, of another run perhaps, is about the same snapshot. Raises as ``require`` does.
    """
    is_own = permitted.machine == permitted.request.machine
    return _ask(configuration, permitted.request, is_own=is_own, resolved=name).resolved or name


def _ask(
    configuration: StorageConfig, wanted: AccessRequest, *, is_own: bool, resolved: str | None = None
) -> StorageAccessAnswer:
    def message(credentials: StorageCredentials) -> StorageAccessRequest:
        return StorageAccessRequest(
            credentials,
            MachineReference(wanted.machine),
            wanted.action,
            wanted.source,
            of_machine=wanted.of_machine,
            request=wanted.request,
            resolved=resolved,
        )

    try:
        answer = Coordinator(configuration).beyond_contract().call(_CALL, message, StorageAccessAnswer)
    except ApiNotFound:
        _LOG.debug("the coordinator knows no %s", _CALL)
        answer = StorageAccessAnswer(is_own, "the coordinator does not say that it may")
    if not answer.allowed:
        whose = "this machine" if is_own else f"machine {wanted.of_machine}"
        reason = one_line(answer.reason or "the coordinator says no")
        _LOG.warning("%s of source %s of %s: refused: %s", wanted.action, wanted.source, whose, reason)
        raise NotInHistory(f"{whose}, source {wanted.source}: not to be seen from here: {reason}")
    return answer
