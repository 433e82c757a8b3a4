"""The checkin: what is due by the coordinator's answer, sorted by storage (contract, "A backup session", step 1)."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import msgspec
from msgspec import UNSET, UnsetType, structs

from turku.agent.config.model import AgentConfig, SourceConfig
from turku.agent.identity import machine_identity
from turku.agent.state import host_report, session_record
from turku.core.clock import SYSTEM_CLOCK
from turku.core.log import one_line
from turku.errors import NotInHistory
from turku.protocol.messages import (
    PROFILES_CALL,
    AgentPingCheckinAnswer,
    AgentPingRequest,
    AgentPingRestoreAnswer,
    AgentProfilesAnswer,
    MachineCredentials,
    SourceOrder,
    StorageAddress,
)

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class DueStorage:
    """A storage, as the coordinator describes it, with the sources of this machine that are due there."""

    address: StorageAddress
    sources: tuple[SourceConfig, ...]


@dataclass(frozen=True)
class CheckinResult:
    """The coordinator's answer to a checkin."""

    storages: list[DueStorage]
    """The storages that are to back up sources now."""
    restores: msgspec.Raw | UnsetType
    """The restore requests for this machine, not decoded yet (remote_restore.py)."""
    has_other_profiles: bool = False
    """True when the coordinator has other profiles for this machine than it keeps."""


def check_in(agent: AgentConfig) -> CheckinResult:
    """Ask the coordinator what is due. Raises ConfigurationError (not registered), ApiRefused, ApiUnreachable.

    Only sources of this machine's own configuration are due, and those that it took from profiles, with the paths that
    it knows. A coordinator can ask for no other name or path (threats S2, C6).
    """
    now = SYSTEM_CLOCK.now()
    record = session_record.read(agent.state)
    failures = session_record.failures_to_tell(record, now=now)
    digest = agent.proposed.stored.digest if agent.backup.accept_profiles else UNSET
    host = host_report.report(agent)
    request = AgentPingRequest(machine_identity.existing(agent).credentials, failures, digest, host)
    answer = agent.api.client(agent.state.var_dir).call("agent_ping_checkin", request, AgentPingCheckinAnswer).machine
    if failures is not UNSET:
        session_record.note_reported(agent.state, record, now=now)
    host_report.note_reported(agent, host)
    host_report.show_warnings(answer.warnings)
    orders = answer.scheduled_sources
    for name in orders:
        if name in agent.unusable_sources:
            # The reason was logged when the configuration was read.
            continue
        if name not in agent.sources:
            _LOG.warning(
                "source %r is due, but not configured here; turku-update-config tells the coordinator so", name
            )
        elif orders[name].path != agent.sources[name].path:
            _LOG.info("source %s: the coordinator knows another path; %s is backed up", name, agent.sources[name].path)
    configured = {name: order for name, order in orders.items() if name in agent.sources}
    storages = [
        DueStorage(address, tuple(agent.sources[name] for name in names)) for address, names in by_storage(configured)
    ]
    has_other_profiles = bool(agent.backup.accept_profiles) and answer.profiles is not UNSET
    return CheckinResult(storages, answer.restores, has_other_profiles)


def proposed_profiles(agent: AgentConfig, machine: MachineCredentials) -> AgentProfilesAnswer:
    """Return the profiles that the coordinator has for this machine. Raises ApiRefused, ApiUnreachable.

    A coordinator of the existing system has none (ApiNotFound).
    """
    request = AgentPingRequest(machine=machine)
    return agent.api.client(agent.state.var_dir).beyond_contract().call(PROFILES_CALL, request, AgentProfilesAnswer)


@dataclass(frozen=True)
class RestorableSources:
    """The sources whose history can be restored, each with the storage that is asked."""

    sources: dict[str, SourceOrder]
    former_storages: tuple[StorageAddress, ...] = ()
    """Other storages, which keep what was backed up before this machine was moved."""

    def on(self, storage: str | None) -> "RestorableSources":
        """Return the sources as the storage of that name has them. None leaves the choice to the coordinator.

        Raises NotInHistory for another name.
        """
        if storage is None:
            return self
        present = {name: order for name, order in self.sources.items() if order.storage.name == storage}
        if present:
            return RestorableSources(present)
        for address in self.former_storages:
            if address.name == storage:
                orders = {name: structs.replace(order, storage=address) for name, order in self.sources.items()}
                return RestorableSources(orders)
        known = dict.fromkeys(
            [*(order.storage.name for order in self.sources.values()), *(each.name for each in self.former_storages)]
        )
        raise NotInHistory(
            f"storage {one_line(storage)[:200]} keeps nothing of this machine, as far as the coordinator knows",
            hint=f"there is {', '.join(map(one_line, known))}" if known else "",
        )

    @contextmanager
    def naming_former_storages(self) -> Iterator[None]:
        """Add the former storages to the hint of a NotInHistory that the block raises."""
        try:
            yield
        except NotInHistory as error:
            if self.former_storages:
                named = " or ".join(f"--storage {one_line(each.name)}" for each in self.former_storages)
                more = f"what was backed up before this machine was moved: {named}"
                error.hint = f"{error.hint}; {more}" if error.hint else more
            raise


def restorable_sources(agent: AgentConfig) -> RestorableSources:
    """Return this machine's active sources at the coordinator. Raises as ``check_in`` does."""
    request = AgentPingRequest(machine=machine_identity.existing(agent).credentials)
    api = agent.api.client(agent.state.var_dir)
    answer = api.call("agent_ping_restore", request, AgentPingRestoreAnswer).machine
    return RestorableSources(answer.sources, tuple(each.storage for each in answer.former_storages))


def active_sources(agent: AgentConfig) -> dict[str, SourceOrder]:
    """Return this machine's active sources at the coordinator, by name. Raises as ``check_in`` does."""
    return restorable_sources(agent).sources


def by_storage(orders: Mapping[str, SourceOrder]) -> list[tuple[StorageAddress, list[str]]]:
    """Return each storage that the orders name, with the names of its sources, in their order."""
    return by_address({name: order.storage for name, order in orders.items()})


def by_address(named: Mapping[str, StorageAddress]) -> list[tuple[StorageAddress, list[str]]]:
    """Return each of the addresses once, with the names of its sources, in their order."""
    storages: list[tuple[StorageAddress, list[str]]] = []
    for name, wanted in named.items():
        for address, sources in storages:
            if address == wanted:
                sources.append(name)
                break
        else:
            storages.append((wanted, [name]))
    return storages
