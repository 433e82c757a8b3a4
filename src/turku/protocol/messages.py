"""The messages of every conversation (contract, sections 3 and 4).

Requests are decoded leniently where the contract is open (unknown keys, verbatim source options) and strictly where it
is not (types). Meaning (names, keys, rules) is checked by policy/, not here.
"""

from __future__ import annotations

from copy import copy
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType, field

from turku.protocol import session_framing

Text = Annotated[str, Meta(max_length=4096)]
Port = Annotated[int, Meta(ge=1, le=65535)]
Mebibytes = Annotated[float, Meta(ge=0, le=1e15)]
"""No disk is larger, and any number of them can be added up."""


def _sent(value: Any) -> Any:
    """A default that is sent like any other value, by a message that leaves out fields with plain defaults: what the
    contract names stays there for programs of the existing system, what we added is sent only where it is set."""
    return field(default_factory=lambda: copy(value))


class Registration(msgspec.Struct, frozen=True):
    """Credentials of a registration Auth: name and secret."""

    name: Text
    secret: Text


RegistrationAuth = Registration | Text
"""Name with secret, or the nameless string of the seed."""


class Empty(msgspec.Struct, frozen=True):
    """The answer ``{}``."""


# --- agent: update_config


class MachineConfiguration(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a machine says of itself; ``sources`` maps a name to its options, verbatim."""

    uuid: Text
    secret: Text
    environment_name: Text | None = None
    service_name: Text | None = None
    unit_name: Text | None = None
    ssh_public_key: Text | None = None
    published: bool | None = None
    comment: Text | None = None
    sources: dict[str, dict[str, Any]] | UnsetType = UNSET


class UpdateConfigRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    machine: MachineConfiguration
    auth: RegistrationAuth | None = None


class UpdateConfigAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """``withdrawn`` is ours: sources that were backed up, that the machine declares no more, and of which no operator
    confirmed that this is meant."""

    withdrawn: Annotated[list[Text], Meta(max_length=1000)] = []


# --- agent: agent_ping_checkin, agent_ping_restore


class MachineCredentials(msgspec.Struct, frozen=True):
    uuid: Text
    secret: Text


class AgentPingRequest(msgspec.Struct, frozen=True):
    machine: MachineCredentials


class StorageAddress(msgspec.Struct, frozen=True):
    """Where and as whom a machine reaches a storage, and the host keys it must see there."""

    name: Text
    ssh_ping_host: Text
    ssh_ping_host_keys: list[Text]
    ssh_ping_port: Port
    ssh_ping_user: Text


class SourceOrder(msgspec.Struct, frozen=True, omit_defaults=True):
    """S of the contract: a source with what a backup of it needs.

    ``retention`` is what counts for every storage: the coordinator has united it with the operator's floor already.
    The last fields are ours, left out where there is none: the operator's floor by itself (a storage keeps it even
    where something cut ``retention`` short), the modes that the operator allows (empty: any), the bytes that all
    sources of the machine together may take, the schedule's period (of several snapshots within one, one counts), and
    the limits by time of day, in whose place ``bwlimit`` has the one of the moment; the source's ``compress`` and
    ``not_preserved`` (``policy.run_options``); ``compare_contents``, for which every file is read on both sides;
    ``incomplete``, what becomes of a run that could not read everything (``policy.run_options``); and
    ``one_file_system``, which is on by itself where ``path`` is ``/``.
    """

    path: str
    storage: StorageAddress
    retention: str = _sent("")
    bwlimit: int | float | str | None = _sent(None)
    filter: list[str] = _sent([])
    exclude: list[str] = _sent([])
    shared_service: bool = _sent(False)
    large_rotating_files: bool = _sent(False)
    large_modifying_files: bool = _sent(False)
    snapshot_mode: str | None = _sent(None)
    preserve_hard_links: bool = _sent(False)
    retention_floor: str | None = None
    allowed_snapshot_modes: list[str] = []
    quota_bytes: int | None = None
    period_seconds: Annotated[float, Meta(ge=0)] | None = None
    bandwidth_windows: str | None = None
    compress: str | None = None
    not_preserved: list[str] = []
    compare_contents: bool = False
    incomplete: str | None = None
    one_file_system: bool = False


class DueMachine(msgspec.Struct, frozen=True, omit_defaults=True):
    """``restores`` is ours: a list of ``restore_request_messages.RestoreOrder``, left out where none waits. It is
    decoded by itself, so that nothing in it can keep a backup from being made."""

    scheduled_sources: dict[str, SourceOrder]
    restores: msgspec.Raw | UnsetType = UNSET


class AgentPingCheckinAnswer(msgspec.Struct, frozen=True):
    machine: DueMachine


class RestorableMachine(msgspec.Struct, frozen=True):
    sources: dict[str, SourceOrder]


class AgentPingRestoreAnswer(msgspec.Struct, frozen=True):
    machine: RestorableMachine


# --- storage: storage_update_config


STORAGE_FAULTS_LIMIT = 20
"""Sentences about what is wrong with a storage that are told."""


class StorageConfiguration(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a storage says of itself; space in MiB.

    What follows ``comment`` is ours, and left out where there is nothing. ``slots``: how many machines it takes at
    once. ``faults``: what is wrong with it, as a volume that is not mounted; a sentence each.
    """

    name: Text
    secret: Text
    ssh_ping_host: Text
    ssh_ping_host_keys: list[Text]
    ssh_ping_user: Text
    space_total: Mebibytes
    space_available: Mebibytes
    ssh_ping_port: Port = 22
    published: bool | None = None
    comment: Text | None = None
    slots: Annotated[int, Meta(ge=1, le=1000)] | None = None
    faults: Annotated[list[Text], Meta(max_length=STORAGE_FAULTS_LIMIT)] = []


class StorageUpdateConfigRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    storage: StorageConfiguration
    auth: RegistrationAuth | None = None


class AssignedMachine(msgspec.Struct, frozen=True):
    """``ssh_public_key`` is required, and None for a machine that has no key yet: without one, nobody is let in."""

    ssh_public_key: str | None
    environment_name: str | None = None
    service_name: str | None = None
    unit_name: str | None = None
    comment: str | None = None


class StorageUpdateConfigAnswer(msgspec.Struct, frozen=True):
    """``machines`` is required: machines that it lacks lose their keys."""

    machines: dict[str, AssignedMachine]


# --- storage: storage_ping_checkin, storage_ping_source_update


class StorageCredentials(msgspec.Struct, frozen=True):
    name: Text
    secret: Text


class MachineReference(msgspec.Struct, frozen=True):
    uuid: Text


class StoragePingCheckinRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """``sends_heartbeats`` is ours: ``/v2/storage_heartbeat`` will tell that the session goes on, and when it ends."""

    storage: StorageCredentials
    machine: MachineReference
    sends_heartbeats: bool = False


class ScheduledMachine(msgspec.Struct, frozen=True, omit_defaults=True):
    """``quota_bytes`` is ours: what all sources of the machine together may take; left out where there is none."""

    uuid: str
    scheduled_sources: dict[str, SourceOrder]
    environment_name: str | None = _sent(None)
    service_name: str | None = _sent(None)
    unit_name: str | None = _sent(None)
    quota_bytes: int | None = None


class StoragePingCheckinAnswer(msgspec.Struct, frozen=True):
    machine: ScheduledMachine


STRATEGIES = ("unchanged", "incremental", "full", "in-place")
"""How a snapshot was made: nothing was transferred, what differs alone, all of it, or all of it into the only copy."""
STRATEGY_REASON_LIMIT = 1000
"""Characters."""
WARNINGS_LIMIT = 50
"""Sentences of one run that are told; the rest is counted."""


class SourceReport(msgspec.Struct, frozen=True, omit_defaults=True):
    """How the backup of one source went; times are Unix seconds.

    What follows ``time_end`` is ours, and left out where there is nothing. ``suspicious``: what looks as if the machine
    had been taken over. ``strategy``: how the snapshot was made, one of ``STRATEGIES``. ``strategy_reason``: why all of
    the source was transferred although there was a snapshot to build upon. ``missing_files`` could not be read and are
    in no snapshot before either. ``stale_files`` could not be read and are in the snapshot with their last good
    content. ``warnings``: the first of these and of what else could not be kept, a sentence each; ``warning_count``
    counts all of them.
    """

    success: bool = _sent(False)
    snapshot: Text | None = _sent(None)
    summary: Annotated[str, Meta(max_length=65536)] | None = _sent(None)
    time_begin: float | None = _sent(None)
    time_end: float | None = _sent(None)
    findings: Annotated[list[Text], Meta(max_length=20)] = []
    strategy: Text = ""
    strategy_reason: Annotated[str, Meta(max_length=STRATEGY_REASON_LIMIT)] = ""
    missing_files: Annotated[int, Meta(ge=0)] = 0
    stale_files: Annotated[int, Meta(ge=0)] = 0
    warning_count: Annotated[int, Meta(ge=0)] = 0
    warnings: Annotated[list[Text], Meta(max_length=WARNINGS_LIMIT)] = []


class ReportedMachine(msgspec.Struct, frozen=True):
    uuid: Text
    sources: dict[str, SourceReport] = {}


class StoragePingSourceUpdateRequest(msgspec.Struct, frozen=True):
    storage: StorageCredentials
    machine: ReportedMachine


# --- beyond the contract: new identities for what is known already


class MachineReenrolRequest(msgspec.Struct, frozen=True):
    """``machine_reenrol``: a reinstalled machine takes its place again with the operator's one-time code."""

    code: Text
    secret: Text
    ssh_public_key: Text


class MachineReenrolAnswer(msgspec.Struct, frozen=True):
    """The identity to go on with; of ``machine`` the UUID alone."""

    machine: MachineReference


class MachineRotateRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """``machine_rotate``: a new secret and, where given, a new SSH key. Sent again after a lost answer, it is answered
    again: the machine is known by either secret then."""

    machine: MachineCredentials
    new_secret: Text
    new_ssh_public_key: Text | None = None


class StorageRotateRequest(msgspec.Struct, frozen=True):
    """``storage_rotate``: a new secret, on the same terms; host keys change by ``storage_update_config``."""

    storage: StorageCredentials
    new_secret: Text


# --- health


class HealthAnswer(msgspec.Struct, frozen=True):
    healthy: bool
    date: str
    counts: dict[str, int]


# --- agent to storage, on ssh's standard input


class SourceCredentials(msgspec.Struct, frozen=True):
    """One-time user name and password of one rsyncd module.

    ``one_file_system`` is ours: the machine obeys the source's option by itself, so that the storage need not.
    """

    username: Annotated[str, Meta(min_length=1, max_length=128)]
    password: Annotated[str, Meta(min_length=1, max_length=128)]
    one_file_system: bool | UnsetType = UNSET


class SessionRequest(msgspec.Struct, frozen=True):
    """What the agent asks of the storage's forced command; ended on the wire by a line with a single ``.``.

    What follows is ours, left out where there is none. ``withheld``: due sources that the machine does not offer now,
    and why. ``parallel_sources``: of how many the machine lets itself be read at once. ``moment_ns``: the machine's
    clock at the beginning of the session, in Unix nanoseconds, sent where the machine can name entries that changed
    lately (``changed_entries_messages``).
    """

    action: Literal["checkin", "restore"]
    port: Annotated[int, Meta(ge=1024, le=65535)]
    verbose: bool = False
    sources: dict[str, SourceCredentials] = {}
    withheld: dict[str, Annotated[str, Meta(max_length=1000)]] | UnsetType = UNSET
    parallel_sources: Annotated[int, Meta(ge=1, le=64)] | UnsetType = UNSET
    moment_ns: Annotated[int, Meta(ge=0, le=2**63 - 1)] | UnsetType = UNSET


SESSION_REQUEST_END = session_framing.SESSION_REQUEST_END
SESSION_REQUEST_LIMIT_BYTES = session_framing.SESSION_REQUEST_LIMIT_BYTES
SESSION_REQUEST_TIMEOUT_SECONDS = session_framing.SESSION_REQUEST_TIMEOUT_SECONDS
REMOTE_COMMAND = "turku-ping-remote"
PORT_RANGE = range(49152, 65536)
"""Where an agent draws its port from (contract, section 4)."""


def restore_active_line(port: int) -> str:
    """What the storage answers to ``restore`` (contract, section 4.6); agents of both kinds show it as it is."""
    return f"Restore mode active on port {port}.  Good luck."
