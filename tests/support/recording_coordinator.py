"""A checkin whose coordinator says that sources are due, and keeps what is reported of them.

coordinator = RecordingCoordinator(etc=order())
coordinator.checkin(storage, UUID, request)
coordinator.reports["etc"]                          the report as it goes over the wire
"""

from typing import Any

import msgspec
import pytest

from turku.core.clock import SYSTEM_CLOCK
from turku.protocol.messages import (
    HEARTBEAT_CALL,
    Empty,
    ScheduledMachine,
    SessionRequest,
    SourceOrder,
    StorageCredentials,
    StorageHeartbeatAnswer,
    StoragePingCheckinAnswer,
)
from turku.storage.config.model import StorageConfig
from turku.storage.registration.coordinator import Coordinator
from turku.storage.session import checkin
from turku.storage.session.cancellation import SessionCancellation


class RecordingCoordinator(Coordinator):
    """Stands for the client of the coordinator, without a connection."""

    def __init__(self, **due: SourceOrder) -> None:
        self.due = due
        self.reports: dict[str, Any] = {}

    def beyond_contract(self) -> Coordinator:
        return self

    def clock_warning(self, clock: object) -> str:
        return ""

    def call(self, name: str, message: Any, answer: object) -> Any:
        asked = msgspec.to_builtins(message(StorageCredentials("primary", "secret")))
        if name == "storage_ping_checkin":
            return StoragePingCheckinAnswer(ScheduledMachine(asked["machine"]["uuid"], self.due))
        if name == HEARTBEAT_CALL:
            return StorageHeartbeatAnswer(leased=True)
        self.reports |= asked["machine"]["sources"]
        return Empty()

    def checkin(self, storage: StorageConfig, uuid: str, request: SessionRequest) -> None:
        """Run the checkin of an agent that stays."""
        with pytest.MonkeyPatch.context() as patch, SessionCancellation(None) as agent:
            patch.setattr(checkin, "Coordinator", lambda _configuration: self)
            checkin.Checkin(storage, uuid, request, agent, SYSTEM_CLOCK).run()
