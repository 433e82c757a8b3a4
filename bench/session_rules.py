"""Rules for sessions in a simulated fleet: the slots of the coordinator, or limits of the storages without a queue."""

from collections import Counter
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from bench.simulated_fleet import Session, SimulatedFleet

HEARTBEAT_SECONDS = 60.0
KILLED_SECONDS = 300.0
"""The time after which a storage without leases notices that a session was killed."""


class SessionRules(Protocol):
    """The rules."""

    storage_settings: dict[str, Any]
    """The fields that a storage sends beside the contract's."""
    session_settings: dict[str, Any]
    """The fields that it sends when a session begins."""

    def may_open(self, fleet: "SimulatedFleet", session: "Session") -> bool:
        """Return True if the storage takes the session that an agent wants to begin."""

    def opened(self, fleet: "SimulatedFleet", session: "Session") -> None:
        """The session began."""

    def closed(self, fleet: "SimulatedFleet", session: "Session", *, is_killed: bool, has_unreported: bool) -> None:
        """The session is over."""


class CoordinatorSlots:
    """The coordinator gives slots, which heartbeats keep."""

    def __init__(self, slots: int) -> None:
        self.storage_settings: dict[str, Any] = {"slots": slots}
        self.session_settings: dict[str, Any] = {"sends_heartbeats": True}

    def may_open(self, fleet: "SimulatedFleet", session: "Session") -> bool:  # noqa: ARG002  (as the other rule has it)
        return True

    def opened(self, fleet: "SimulatedFleet", session: "Session") -> None:
        fleet.at(fleet.clock.seconds + HEARTBEAT_SECONDS, self._beat, fleet, session)

    def closed(self, fleet: "SimulatedFleet", session: "Session", *, is_killed: bool, has_unreported: bool) -> None:
        if has_unreported and not is_killed and not fleet.is_coordinator_down:
            self._report(fleet, session, {"ended": True})

    def _beat(self, fleet: "SimulatedFleet", session: "Session") -> None:
        if session.is_over:
            return
        if not fleet.is_coordinator_down:
            self._report(fleet, session, {})
        fleet.at(fleet.clock.seconds + HEARTBEAT_SECONDS, self._beat, fleet, session)

    def _report(self, fleet: "SimulatedFleet", session: "Session", more: dict[str, Any]) -> None:
        fleet.calls["storage_heartbeat"] += 1
        message = {"storage": session.storage.credentials, "machine": {"uuid": session.machine.uuid}, **more}
        fleet.coordinator.call("storage_heartbeat", message, version="v2")


class StorageLimits:
    """Storages that refuse a session too many. Those with first backups may take a quarter of its slots. Nobody
    queues: the machine that pings in the right moment gets the slot. The coordinator's own slots must be more than any
    storage uses."""

    def __init__(self, slots: int) -> None:
        self.storage_settings: dict[str, Any] = {"slots": 1_000}
        self.session_settings: dict[str, Any] = {}
        self._slots = slots
        self._first_slots = max(slots // 4, 1)
        self._taken: Counter[str] = Counter()
        self._taken_by_first: Counter[str] = Counter()

    def may_open(self, fleet: "SimulatedFleet", session: "Session") -> bool:  # noqa: ARG002  (as the other rule has it)
        storage = session.storage.name
        if session.is_first:
            return self._taken_by_first[storage] < self._first_slots
        return self._taken[storage] - self._taken_by_first[storage] < self._slots - self._first_slots

    def opened(self, fleet: "SimulatedFleet", session: "Session") -> None:  # noqa: ARG002
        self._count(session, 1)

    def closed(self, fleet: "SimulatedFleet", session: "Session", *, is_killed: bool, has_unreported: bool) -> None:  # noqa: ARG002
        fleet.at(fleet.clock.seconds + (KILLED_SECONDS if is_killed else 0.0), self._count, session, -1)

    def _count(self, session: "Session", change: int) -> None:
        self._taken[session.storage.name] += change
        self._taken_by_first[session.storage.name] += change * session.is_first
