"""Access to history: the coordinator decides for each machine, and this storage can refuse first."""

import logging
from dataclasses import dataclass, replace
from typing import Literal

from turku.core.log import one_line
from turku.errors import ApiNotFound, NotInHistory
from turku.policy import names
from turku.protocol.messages import MachineReference, StorageCredentials
from turku.protocol.restore_messages import SnapshotChoice, StorageAccessAnswer, StorageAccessRequest, path_bytes
from turku.storage.config.model import StorageConfig
from turku.storage.registration.coordinator import Coordinator

_CALL = "storage_access_request"
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class AccessRequest:
    """The request of a machine. Except for its own UUID, its names are as the machine sent them."""

    machine: str
    action: Literal["browse", "restore"]
    source: str
    of_machine: str | None = None
    request: str | None = None


@dataclass(frozen=True)
class AccessGrant:
    """The granted machine and source, with valid names.

    Only ``history_view.HistoryView`` reads the fields, to decide what the session sees.
    """

    machine: str
    source: str
    request: AccessRequest
    paths: frozenset[bytes] = frozenset()
    """The only paths, with everything below them, or empty for all paths."""
    snapshot: SnapshotChoice | None = None
    """The only snapshot, as it was chosen when the restore was approved, or None for all snapshots."""
    resolved: str | None = None
    """The name of the snapshot that was chosen, or None if nobody has used the grant yet."""


def require(configuration: StorageConfig, request: AccessRequest) -> AccessGrant:
    """Return the grant for the request.

    Another machine's history needs the coordinator's approval. A coordinator of the existing system does not know the
    call. A machine then sees its own history, as with every coordinator unless ``machines_see_history`` is false.
    Raises NotInHistory if access is refused, InvalidValue for an invalid name, ApiRefused, ApiUnreachable.
    """
    source = names.source_name(request.source)
    owner = names.machine_uuid(request.of_machine) if request.of_machine else request.machine
    if not configuration.sessions.machines_see_history:
        # Not even if the coordinator grants it: a hostile coordinator must not have history sent out (threats C4).
        raise NotInHistory(
            f"storage {configuration.identity.name} shows no history to machines (machines_see_history)",
            hint="an operator of the storage can restore: turku-agent-ping --restore",
        )
    is_own = owner == request.machine
    lawful = replace(request, source=source, of_machine=None if is_own else owner)
    answer = _ask(configuration, lawful, is_own=is_own)
    paths = frozenset(names.path_inside(path_bytes(path)) for path in answer.paths)
    snapshot = answer.snapshot
    if snapshot is None and not (is_own and request.request is None):
        # If a coordinator names no snapshot for a request, the latest one is meant and no other.
        snapshot = SnapshotChoice()
    return AccessGrant(owner, source, lawful, frozenset() if b"" in paths else paths, snapshot, answer.resolved)


def fix_snapshot(configuration: StorageConfig, grant: AccessGrant, name: str) -> str:
    """Return the name of the snapshot that the grant is for from now on.

    ``name`` is the present meaning of its choice. The coordinator remembers the first name, so that a later session,
    perhaps of another run, gets the same snapshot. Raises what ``require`` raises.
    """
    is_own = grant.machine == grant.request.machine
    return _ask(configuration, grant.request, is_own=is_own, resolved=name).resolved or name


def _ask(
    configuration: StorageConfig, request: AccessRequest, *, is_own: bool, resolved: str | None = None
) -> StorageAccessAnswer:
    def message(credentials: StorageCredentials) -> StorageAccessRequest:
        return StorageAccessRequest(
            credentials,
            MachineReference(request.machine),
            request.action,
            request.source,
            of_machine=request.of_machine,
            request=request.request,
            resolved=resolved,
        )

    try:
        answer = Coordinator(configuration).beyond_contract().call(_CALL, message, StorageAccessAnswer)
    except ApiNotFound:
        _LOG.debug("the coordinator knows no %s", _CALL)
        answer = StorageAccessAnswer(is_own, "the coordinator does not say that it may")
    if not answer.allowed:
        whose = "this machine" if is_own else f"machine {request.of_machine}"
        reason = one_line(answer.reason or "the coordinator says no")
        _LOG.warning("%s of source %s of %s: refused: %s", request.action, request.source, whose, reason)
        raise NotInHistory(f"{whose}, source {request.source}: not to be seen from here: {reason}")
    return answer
