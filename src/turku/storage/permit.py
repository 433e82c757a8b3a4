"""May this machine see what is kept here, or have it back? The coordinator says so; this storage can say no before."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Literal

from turku.core.log import one_line
from turku.errors import ApiRefused, NotInHistory
from turku.policy import names
from turku.protocol.messages import MachineReference, StorageCredentials
from turku.protocol.restore_messages import (
    RestorePermitAnswer,
    RestorePermitRequest,
    SnapshotChoice,
    path_bytes,
)
from turku.storage.configuration import Storage
from turku.storage.coordinator import Coordinator

_CALL = "storage_restore_permit"
_NOT_FOUND = 404
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wanted:
    """Who wants what; every name in it is still as the machine sent it, but for its own UUID."""

    machine: str
    action: Literal["look", "recover"]
    source: str
    of_machine: str | None = None
    request: str | None = None


@dataclass(frozen=True)
class Permitted:
    """The machine and the source whose history may be shown or handed out, as lawful names."""

    machine: str
    source: str
    paths: tuple[bytes, ...] = ()
    """These and what is below them; none: all."""
    snapshot: SnapshotChoice | None = None
    """This choice of a snapshot only; None: any."""

    def require_path(self, path: bytes) -> None:
        """Raise NotInHistory where the path (already lawful) is none of those."""
        if self.paths and not any(path == other or path.startswith(other + b"/") for other in self.paths):
            raise NotInHistory("the coordinator's permission is for other paths of this source")

    def require_snapshot(self, choice: SnapshotChoice) -> None:
        """Raise NotInHistory where the choice is another one."""
        if self.snapshot is not None and choice != self.snapshot:
            raise NotInHistory("the coordinator's permission is for another snapshot of this source")


def require(configuration: Storage, wanted: Wanted) -> Permitted:
    """What may be shown or handed out.

    Another machine's history takes the coordinator's word. A coordinator of the existing system knows no such call: a
    machine then has its own, as it has with every coordinator where ``machines_see_history`` is not false.
    Raises NotInHistory where it may not, PolicyError for what is no name, ApiRefused, ApiUnreachable.
    """
    source = names.source_name(wanted.source)
    owner = names.machine_uuid(wanted.of_machine) if wanted.of_machine else wanted.machine
    if not configuration.machines_see_history:
        # Not even where the coordinator would let it: a hostile one must not have history handed out (threats C4).
        raise NotInHistory(
            f"storage {configuration.name} shows no history to machines (machines_see_history)",
            hint="an operator of the storage can restore: turku-agent-ping --restore",
        )

    def message(credentials: StorageCredentials) -> RestorePermitRequest:
        return RestorePermitRequest(
            credentials,
            MachineReference(wanted.machine),
            wanted.action,
            source,
            of_machine=None if owner == wanted.machine else owner,
            request=wanted.request,
        )

    try:
        answer = Coordinator(configuration).beyond_contract().call(_CALL, message, RestorePermitAnswer)
    except ApiRefused as refusal:
        if refusal.status != _NOT_FOUND:
            raise
        _LOG.debug("the coordinator knows no %s", _CALL)
        answer = RestorePermitAnswer(owner == wanted.machine, "the coordinator does not say that it may")
    if not answer.allowed:
        _LOG.warning("%s of source %s of %s: refused: %s", wanted.action, source, owner, one_line(answer.reason or ""))
        raise NotInHistory(
            f"{'this machine' if owner == wanted.machine else f'machine {owner}'}, source {source}: "
            f"not to be seen from here: {one_line(answer.reason or 'the coordinator says no')}"
        )
    paths = tuple(names.path_inside(path_bytes(path)) for path in answer.paths)
    return Permitted(owner, source, () if b"" in paths else paths, answer.snapshot)
