"""The messages of every conversation (contract, "Calls" and "A backup session").

Requests are decoded leniently where the contract is open (unknown keys, verbatim source options), and strictly in their
types. ``turku.policy`` checks the meaning of names, keys and rules. Fields described as ours are beyond the contract
and are omitted where they are empty.
"""

from copy import copy
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType, field

from turku.protocol.certificate import FINGERPRINTS_LIMIT, Fingerprint

Text = Annotated[str, Meta(max_length=4096)]
Fingerprints = Annotated[list[Fingerprint], Meta(max_length=FINGERPRINTS_LIMIT)]
Port = Annotated[int, Meta(ge=1, le=65535)]
Mebibytes = Annotated[float, Meta(ge=0, le=1e15)]
"""No disk is larger, and sums of many stay exact enough."""


def _sent(value: Any) -> Any:
    """Return a default that is always sent, in a message type that omits plain defaults.

    Programs of the existing system rely on the fields of the contract. Fields of ours are sent only where they are set.
    """
    return field(default_factory=lambda: copy(value))


class Registration(msgspec.Struct, frozen=True):
    """Credentials of a registration Auth: name and secret."""

    name: Text
    secret: Text


RegistrationAuth = Registration | Text
"""Name with secret, or the nameless string of the contract."""


class Empty(msgspec.Struct, frozen=True):
    """The answer ``{}``."""


# --- agent: update_config


WARNINGS_OF_MACHINE_LIMIT = 20
"""Most warnings in one answer."""


class RefusedProposal(msgspec.Struct, frozen=True):
    """A source of a profile that the machine does not take, with the reason."""

    profile: Text
    source: Text
    reason: Text


class ProfileReport(msgspec.Struct, frozen=True, omit_defaults=True):
    """The parts of the coordinator's profiles that a machine accepts, takes and refuses.

    ``digest`` is that of the profiles (``agent_profiles``). ``taken`` maps sources to profiles. ``refused_count`` is
    the number of all refused sources.
    """

    accepts: Annotated[list[Text], Meta(max_length=100)]
    digest: Annotated[str, Meta(max_length=64)] = ""
    taken: Annotated[dict[Text, Text], Meta(max_length=1000)] = {}
    refused: Annotated[list[RefusedProposal], Meta(max_length=200)] = []
    refused_count: Annotated[int, Meta(ge=0)] = 0


class MachineConfiguration(msgspec.Struct, frozen=True, omit_defaults=True):
    """The identity and sources of a machine. ``sources`` maps names to options, verbatim.

    ``accepted_keys`` is ours: the keys by which the machine recognizes the coordinator, if it does not by authorities.
    ``profiles`` is ours, and omitted by a machine that accepts no profiles.
    """

    uuid: Text
    secret: Text
    environment_name: Text | None = None
    service_name: Text | None = None
    unit_name: Text | None = None
    ssh_public_key: Text | None = None
    published: bool | None = None
    comment: Text | None = None
    sources: dict[str, dict[str, Any]] | UnsetType = UNSET
    unusable_sources: dict[str, Text] = {}
    """Ours: further sources that are declared on the machine and that it cannot offer, each with the reason."""
    accepted_keys: Fingerprints = []
    profiles: ProfileReport | UnsetType = UNSET


Versions = Annotated[dict[Text, Text], Meta(max_length=20)]
"""The versions of a host's programs by their names."""


class HostReport(msgspec.Struct, frozen=True, omit_defaults=True):
    """The state of a machine's host. It is ours.

    ``system`` is the running system, which changes with each boot. ``versions`` are sent where they changed.
    """

    system: Annotated[str, Meta(max_length=64)] = ""
    versions: Versions = {}


class UpdateConfigRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """``takes_part`` is ours: the machine reads ``refused`` in the answer. Without it, one bad source refuses all."""

    machine: MachineConfiguration
    auth: RegistrationAuth | None = None
    takes_part: bool = False
    host: HostReport = HostReport()


class UpdateConfigAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """``withdrawn`` is ours: backed-up sources that the machine no longer declares, unless an operator confirmed it.

    ``refused`` is ours as well: sources that are not taken, each with the reason. A former declaration stays in force.
    ``announced_keys`` is ours: for a machine that sent ``accepted_keys``, those that the coordinator has from now on.
    ``warnings`` is ours: sentences for the machine's log, such as on another machine of its name.
    """

    withdrawn: Annotated[list[Text], Meta(max_length=1000)] = []
    refused: Annotated[dict[Text, Text], Meta(max_length=1000)] = {}
    announced_keys: Fingerprints = []
    warnings: Annotated[list[Text], Meta(max_length=WARNINGS_OF_MACHINE_LIMIT)] = []


# --- agent: agent_ping_checkin, agent_ping_restore


class MachineCredentials(msgspec.Struct, frozen=True):
    uuid: Text
    secret: Text


SESSION_FAILURES_LIMIT = 20
"""Most storages, and most sources of each, that a machine names in its failures."""
SESSION_FAILURE_REASON_LIMIT = 300


class SessionFailure(msgspec.Struct, frozen=True):
    """A session with a storage that came to nothing, which only the machine knows of. ``kind`` is a word of an error.

    ``seconds_ago`` counts from the first failure since the last session that worked.
    """

    storage: Text
    kind: Text
    reason: Text
    sources: Annotated[list[Text], Meta(max_length=SESSION_FAILURES_LIMIT)]
    seconds_ago: Annotated[float, Meta(ge=0)]


class AgentPingRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """``session_failures`` is ours: sent where they differ from those sent last, and empty when none is left.

    ``profiles`` is ours as well: the digest of the profiles that the machine has, if it accepts any.
    """

    machine: MachineCredentials
    session_failures: Annotated[list[SessionFailure], Meta(max_length=SESSION_FAILURES_LIMIT)] | UnsetType = UNSET
    profiles: Annotated[str, Meta(max_length=64)] | UnsetType = UNSET
    host: HostReport = HostReport()


class StorageAddress(msgspec.Struct, frozen=True):
    """The SSH address of a storage, the user to log in as, and the host keys to expect there."""

    name: Text
    ssh_ping_host: Text
    ssh_ping_host_keys: list[Text]
    ssh_ping_port: Port
    ssh_ping_user: Text


class SourceOrder(msgspec.Struct, frozen=True, omit_defaults=True):
    """S of the contract: a source with its options for a backup. The fields after ``preserve_hard_links`` are ours."""

    path: str
    storage: StorageAddress
    retention: str = _sent("")
    """Already united with the operator's floor, for storages that know no floor."""
    bwlimit: int | float | str | None = _sent(None)
    filter: list[str] = _sent([])
    exclude: list[str] = _sent([])
    shared_service: bool = _sent(False)
    large_rotating_files: bool = _sent(False)
    large_modifying_files: bool = _sent(False)
    snapshot_mode: str | None = _sent(None)
    preserve_hard_links: bool = _sent(False)
    retention_floor: str | None = None
    """The operator's floor by itself. A storage keeps it even if something shortened ``retention``."""
    allowed_snapshot_modes: list[str] = []
    """Modes that the operator allows. Empty for any."""
    quota_bytes: int | None = None
    """Bytes that all sources of the machine may take together."""
    period_seconds: Annotated[float, Meta(ge=0)] | None = None
    """Period of the schedule. Of several snapshots within one period, one counts."""
    bandwidth_windows: str | None = None
    """Limits by time of day. ``bwlimit`` then has the present one."""
    compress: str | None = None
    not_preserved: list[str] = []
    compare_contents: bool = False
    """Reads every file on both sides."""
    incomplete: str | None = None
    """``keep`` or ``fail`` (``policy.run_options``), for a run that could not read all files."""
    one_file_system: bool = False
    """The coordinator sends the resolved value: true if what is mounted below the source is left out."""


class DueMachine(msgspec.Struct, frozen=True, omit_defaults=True):
    """``restores`` is ours: a list of ``restore_request_messages.RestoreOrder``.

    So is ``profiles``, the digest of the machine's profiles if it has other ones. They are decoded separately, so that
    a fault in them cannot prevent a backup. ``warnings`` is ours, too: sentences for the machine's log.
    """

    scheduled_sources: dict[str, SourceOrder]
    restores: msgspec.Raw | UnsetType = UNSET
    profiles: msgspec.Raw | UnsetType = UNSET
    warnings: Annotated[list[Text], Meta(max_length=WARNINGS_OF_MACHINE_LIMIT)] = []


PROFILES_CALL = "agent_profiles"
"""The call at ``/v2`` that returns the profiles of a machine. Its request is that of a checkin."""


class ProposedProfile(msgspec.Struct, frozen=True):
    """A profile for this machine. ``sources`` maps names to options, verbatim."""

    name: Text
    sources: dict[str, dict[str, Any]]


class AgentProfilesAnswer(msgspec.Struct, frozen=True):
    digest: Annotated[str, Meta(max_length=64)]
    profiles: Annotated[list[ProposedProfile], Meta(max_length=1000)]


class AgentPingCheckinAnswer(msgspec.Struct, frozen=True):
    machine: DueMachine


class FormerStorage(msgspec.Struct, frozen=True, omit_defaults=True):
    """A storage that keeps what the machine backed up before it was moved, until a moment in ISO form or for ever."""

    storage: StorageAddress
    keep_until: Text | None = None


class RestorableMachine(msgspec.Struct, frozen=True, omit_defaults=True):
    """``former_storages`` is ours: the last one first. Each may have history of every source."""

    sources: dict[str, SourceOrder]
    former_storages: Annotated[list[FormerStorage], Meta(max_length=100)] = []


class AgentPingRestoreAnswer(msgspec.Struct, frozen=True):
    machine: RestorableMachine


# --- storage: storage_update_config


ENDED_LIMIT = 1000
"""Most ended histories that one message names."""
STORAGE_FAULTS_LIMIT = 20
"""Most faults of a storage that are reported."""
FAULT_UNMOUNTED, FAULT_FULL, FAULT_CLOCK, FAULT_OTHER = "unmounted", "full", "clock-off", ""
FAULT_KINDS = (FAULT_UNMOUNTED, FAULT_FULL, FAULT_CLOCK)
"""Kinds of faults that have a mark of their own, the worst first. Others are just faults."""


class StorageConfiguration(msgspec.Struct, frozen=True, omit_defaults=True):
    """The identity, address and space (in MiB) of a storage. The fields after ``comment`` are ours."""

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
    """Number of sessions at once."""
    faults: Annotated[list[Text], Meta(max_length=STORAGE_FAULTS_LIMIT)] = []
    """Sentences such as on a volume that is not mounted."""
    fault_kinds: Annotated[list[Text], Meta(max_length=STORAGE_FAULTS_LIMIT)] = []
    """The kind of each fault. A kind that the coordinator does not know counts as ``FAULT_OTHER``."""
    time_now: float | None = None
    """The storage's clock (Unix seconds), which the coordinator compares with its own."""
    versions: Versions = {}
    ended_histories: Annotated[list[Text], Meta(max_length=ENDED_LIMIT)] = []
    """UUIDs of ``former_histories`` of which nothing is left."""
    accepted_keys: Fingerprints = []
    """The keys by which the storage recognizes the coordinator, if it does not by authorities."""


class StorageUpdateConfigRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    storage: StorageConfiguration
    auth: RegistrationAuth | None = None


class AssignedMachine(msgspec.Struct, frozen=True):
    """``ssh_public_key`` is required. It is None for a machine without a key, which cannot log in yet."""

    ssh_public_key: str | None
    environment_name: str | None = None
    service_name: str | None = None
    unit_name: str | None = None
    comment: str | None = None


class KeptHistory(msgspec.Struct, frozen=True, omit_defaults=True):
    """The operator's wish for the history of a machine that the storage does not back up any more. It is ours.

    The storage decides what it removes, and when.
    """

    name: Text = ""
    """The name of the machine, for people."""
    moved: bool = False
    """The machine is backed up by another storage, and may restore from this one. Otherwise it was removed."""
    keep_until: Text | None = None
    """A moment in ISO form, after which the history may go to the trash, or None to keep it without end."""


class StorageUpdateConfigAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """``machines`` is required. Machines that are not in it lose their keys. ``announced_keys`` is as for machines.

    ``former_histories`` is ours: by UUID, the history of machines that were moved or removed.
    """

    machines: dict[str, AssignedMachine]
    announced_keys: Fingerprints = []
    former_histories: dict[str, KeptHistory] = {}


# --- storage: storage_ping_checkin, storage_ping_source_update


class StorageCredentials(msgspec.Struct, frozen=True):
    name: Text
    secret: Text


class MachineReference(msgspec.Struct, frozen=True):
    uuid: Text


class StoragePingCheckinRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """``sends_heartbeats`` is ours: the storage will call ``/v2/storage_heartbeat`` until the session ends."""

    storage: StorageCredentials
    machine: MachineReference
    sends_heartbeats: bool = False


class ScheduledMachine(msgspec.Struct, frozen=True, omit_defaults=True):
    """``quota_bytes`` is ours: bytes that all sources of the machine may take together."""

    uuid: str
    scheduled_sources: dict[str, SourceOrder]
    environment_name: str | None = _sent(None)
    service_name: str | None = _sent(None)
    unit_name: str | None = _sent(None)
    quota_bytes: int | None = None


class StoragePingCheckinAnswer(msgspec.Struct, frozen=True):
    machine: ScheduledMachine


STRATEGIES = ("unchanged", "incremental", "full", "in-place")
"""Ways to make a snapshot: without a transfer, of the differences, of all files, or of all files into the only copy."""
STRATEGY_REASON_LIMIT = 1000
"""Characters."""
WARNINGS_LIMIT = 50
"""Warnings of one run that are reported. The others are counted."""


class SourceReport(msgspec.Struct, frozen=True, omit_defaults=True):
    """The outcome of a backup of one source. Times are Unix seconds. The fields after ``time_end`` are ours."""

    success: bool = _sent(False)
    snapshot: Text | None = _sent(None)
    summary: Annotated[str, Meta(max_length=65536)] | None = _sent(None)
    time_begin: float | None = _sent(None)
    time_end: float | None = _sent(None)
    findings: Annotated[list[Text], Meta(max_length=20)] = []
    """Reasons why the snapshot is quarantined."""
    strategy: Text = ""
    """One of ``STRATEGIES``."""
    strategy_reason: Annotated[str, Meta(max_length=STRATEGY_REASON_LIMIT)] = ""
    """The reason for a full transfer in spite of a base snapshot."""
    missing_files: Annotated[int, Meta(ge=0)] = 0
    """Unreadable files that no earlier snapshot has."""
    stale_files: Annotated[int, Meta(ge=0)] = 0
    """Unreadable files that the snapshot has with their last good content."""
    warning_count: Annotated[int, Meta(ge=0)] = 0
    """Number of all warnings."""
    warnings: Annotated[list[Text], Meta(max_length=WARNINGS_LIMIT)] = []
    """The first warnings, on unreadable files and on properties that could not be kept."""


class ReportedMachine(msgspec.Struct, frozen=True):
    uuid: Text
    sources: dict[str, SourceReport] = {}


class StoragePingSourceUpdateRequest(msgspec.Struct, frozen=True):
    storage: StorageCredentials
    machine: ReportedMachine


# --- beyond the contract: the heartbeat of a backup session


HEARTBEAT_CALL = "storage_heartbeat"
HEARTBEAT_SECONDS = 60.0
"""Time between two heartbeats. The coordinator waits for four of them."""


class StorageHeartbeatRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """The report that the session of the machine continues or, with ``ended``, is over."""

    storage: StorageCredentials
    machine: MachineReference
    ended: bool = False


class StorageHeartbeatAnswer(msgspec.Struct, frozen=True):
    """The answer whether the session holds a slot. A session that lost its slot continues, to finish its backup."""

    leased: bool


# --- beyond the contract: new secrets and keys for known machines and storages


class MachineReenrolRequest(msgspec.Struct, frozen=True):
    """``machine_reenrol``: a reinstalled machine gets its identity back with the operator's one-time code."""

    code: Text
    secret: Text
    ssh_public_key: Text


class MachineReenrolAnswer(msgspec.Struct, frozen=True):
    """The UUID of the machine from now on."""

    machine: MachineReference


class MachineRotateRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """``machine_rotate``: a new secret and, where given, a new SSH key.

    After a lost answer, the call can be repeated, because the coordinator then accepts either secret.
    """

    machine: MachineCredentials
    new_secret: Text
    new_ssh_public_key: Text | None = None


class StorageRotateRequest(msgspec.Struct, frozen=True):
    """``storage_rotate``: a new secret, on the same terms. Host keys change by ``storage_update_config``."""

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

    ``one_file_system`` is ours: the machine applies the option itself, so that the storage need not.
    """

    username: Annotated[str, Meta(min_length=1, max_length=128)]
    password: Annotated[str, Meta(min_length=1, max_length=128)]
    one_file_system: bool | UnsetType = UNSET


class SessionRequest(msgspec.Struct, frozen=True):
    """The agent's request to the storage's forced command. A line with a single ``.`` ends it.

    The fields after ``sources`` are ours.
    """

    action: Literal["checkin", "restore"]
    port: Annotated[int, Meta(ge=1024, le=65535)]
    verbose: bool = False
    sources: dict[str, SourceCredentials] = {}
    withheld: dict[str, Annotated[str, Meta(max_length=1000)]] | UnsetType = UNSET
    """Due sources that the machine does not offer now, with the reasons."""
    parallel_sources: Annotated[int, Meta(ge=1, le=64)] | UnsetType = UNSET
    """Number of sources that may be read at once."""
    moment_ns: Annotated[int, Meta(ge=0, le=2**63 - 1)] | UnsetType = UNSET
    """The machine's clock at the beginning of the session, in Unix nanoseconds.

    Only a machine that can name recently changed entries sends it (``changed_entries_messages``).
    """


REMOTE_COMMAND = "turku-ping-remote"
PORT_RANGE = range(49152, 65536)
"""Ports of which an agent draws one (contract, "A backup session")."""


def restore_active_line(port: int) -> str:
    """Return the storage's answer to ``restore`` (contract, "A restore session"), which every agent shows as it is."""
    return f"Restore mode active on port {port}.  Good luck."
