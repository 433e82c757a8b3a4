"""Messages for browsing and restoring history, between agent and storage, and between storage and coordinator.

Beyond the contract. The agent sends one ``HistoryRequest`` on ssh's standard input, as it sends the contract's request.
The storage answers on standard output with one JSON object on each line, each an ``Answer``. Standard error is its log.
"""

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from turku.protocol.messages import MachineReference, SourceCredentials, StorageCredentials, Text

MODULE: Final = "turku-restore"
"""Name of the agent's one writable module."""
TemporaryName = Annotated[str, Meta(pattern=r"\A\.turku-restore-[0-9a-f]{32}\Z")]
"""Name of the directory in the target for files that the storage's rsync is writing. Its digits are random.

The agent creates and removes it. No source contains such a name.
"""
Overwrite = Literal["never", "older", "always"]
"""The existing files that a restore replaces."""
PARTIAL_SUFFIX: Final = "-partial"
"""Added to the name, it is the directory beside an interrupted file, with its part that was written."""
ANSWER_LINE_LIMIT_BYTES: Final = 1024 * 1024
PATH_LIMIT_BYTES: Final = 16 * 1024
PATHS_LIMIT: Final = 1000
SOURCES_LIMIT: Final = 1000
REMARKS_LIMIT: Final = 20
REMARK_LIMIT: Final = 2000
"""Characters."""
WITH_HOLES_LIMIT: Final = 50_000
"""Sparse files that are named in all answers of one restore."""
WITH_HOLES_LIMIT_BYTES: Final = 8 * 1024 * 1024
"""Of their names."""
WITH_HOLES_AT_ONCE: Final = 400
"""In one answer."""
LOST_LIMIT: Final = 1000
"""Lost paths that are named in one answer. The others are counted."""
UNSET_NAMES_LIMIT: Final = 20
"""Names of attributes that are reported for one path."""
LOST_LIMIT_BYTES: Final = 128 * 1024
"""Of their names, so that the answer stays one line."""

Count = Annotated[int, Meta(ge=0, le=2**62)]
WireTime = tuple[Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)], Annotated[int, Meta(ge=0, lt=10**9)]]
"""Seconds and nanoseconds. JSON readers accept no number for a time of any file system in nanoseconds."""
Attributes = Annotated[bytes, Meta(max_length=16)]
"""Digest of extended attributes and ACLs (``core.filesystem.extended_attributes``), empty if there are none."""
Checksum = Annotated[bytes, Meta(min_length=16, max_length=16)]
"""xxh128 of a file's content, as rsync prints it."""
Settable = Literal["acls", "attributes", "privileged"]
"""Properties beside owner, mode and times: ACLs, attributes ``user.*``, and attributes that only root may set."""
Kind = Literal["file", "directory", "link", "fifo", "socket", "block", "character"]


class Base64Path(msgspec.Struct, frozen=True):
    """A path that is not UTF-8."""

    b64: Annotated[bytes, Meta(max_length=PATH_LIMIT_BYTES)]


WirePath = Annotated[str, Meta(max_length=PATH_LIMIT_BYTES)] | Base64Path
"""A path in JSON, as text if it is UTF-8. Relative to its source, without ``./``. Empty for the source itself."""


def wire_path(path: bytes) -> WirePath:
    """Return the path as it is sent."""
    try:
        return path.decode("utf-8")
    except UnicodeDecodeError:
        return Base64Path(path)


def path_bytes(path: WirePath) -> bytes:
    """Return the path that was sent. Check it with ``turku.policy.names.path_inside`` before use."""
    return path.encode("utf-8", "surrogatepass") if isinstance(path, str) else path.b64


def wire_time(time_ns: int) -> WireTime:
    """Return the time as it is sent."""
    return divmod(time_ns, 10**9)


def time_ns(time: WireTime) -> int:
    """Return the time that was sent, in nanoseconds."""
    return time[0] * 10**9 + time[1]


# --- agent to storage: requests


class SnapshotChoice(msgspec.Struct, frozen=True, omit_defaults=True):
    """The choice of a snapshot: by name, or the last one until a moment (``at``), or else the latest.

    ``is_unfinished`` chooses the files of a source whose first backup is not finished.
    """

    name: Text | None = None
    at: Text | None = None
    is_unfinished: bool = False


class BrowseRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """A request to browse history.

    ``snapshots`` lists those of all ``sources``. The other listings take one source: ``ls`` the entries of ``path`` in
    ``snapshot`` (all below it if ``is_recursive``), ``versions`` those of ``path``, ``find`` the paths that match
    ``pattern``, ``diff`` the changes from ``snapshot`` to ``other``.
    ``of_machine`` is another machine's UUID, and ``request`` the coordinator's id of the restore request for it.
    """

    listing: Literal["snapshots", "ls", "versions", "find", "diff"]
    sources: Annotated[list[Text], Meta(min_length=1, max_length=SOURCES_LIMIT)]
    snapshot: SnapshotChoice = SnapshotChoice()
    other: SnapshotChoice = SnapshotChoice()
    path: WirePath = ""
    pattern: WirePath = ""
    ignores_case: bool = False
    is_recursive: bool = False
    limit: Annotated[int, Meta(ge=1, le=10_000_000)] = 10_000
    of_machine: Text | None = None
    request: Text | None = None


class FileRestoreRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """A request to write files into the agent's module, or only to list them. No ``paths`` are the whole source."""

    source: Text
    temporary: TemporaryName
    snapshot: SnapshotChoice = SnapshotChoice()
    paths: Annotated[list[WirePath], Meta(max_length=PATHS_LIMIT)] = []
    overwrite: Overwrite = "always"
    delete: bool = False
    hard_links: bool = False
    list_only: bool = False
    compare_contents: bool = False
    """Read every file on both sides, because size and time may mislead."""
    knows_xxh128: bool = False
    """True when the agent's rsync checks received files by xxh128, so that its checksums can be compared."""
    of_machine: Text | None = None
    request: Text | None = None
    sets: list[Settable] | None = None
    """Properties that the machine can set in the target, and that are sent. Others are reported as ``Unset``.

    An agent that does not know them sends None and receives none.
    """
    digs_holes: bool = False
    """True when the agent makes holes in the files that ``WithHoles`` names. Otherwise rsync does in all files."""


class HistoryRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """The request of a session, with the field that its action names.

    A restore that writes has the ``port`` of the tunnel and the credentials of ``MODULE`` behind it.
    """

    action: Literal["browse", "restore_files"]
    verbose: bool = False
    browse: BrowseRequest | None = None
    restore_files: FileRestoreRequest | None = None
    port: Annotated[int, Meta(ge=1024, le=65535)] | None = None
    module: SourceCredentials | None = None


# --- storage to agent: answers, one on each line


class SnapshotRow(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="row", tag="snapshot"):
    """A snapshot. ``moment`` is in ISO format with zone, or None if unknown.

    With ``is_quarantined``, it looks like an attack and nobody has reviewed it. With ``is_rejected``, somebody has, and
    it holds no good data. With ``is_date_in_doubt``, the storage's clock was wrong, and the snapshot does not count as
    the latest. ``unread_files`` is the number of files that could not be read.
    """

    source: Text
    name: Text
    moment: Text | None = None
    files: Count | None = None
    size_bytes: Count | None = None
    is_held: bool = False
    is_quarantined: bool = False
    is_rejected: bool = False
    is_date_in_doubt: bool = False
    unread_files: Count = 0


class FileRow(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="row", tag="file"):
    """A path in one snapshot, or one version of it with the first and the last snapshot that has it."""

    path: WirePath
    kind: Kind
    size_bytes: Count = 0
    mode: Count = 0
    uid: Count = 0
    gid: Count = 0
    modified: WireTime = (0, 0)
    checksum: Checksum | None = None
    link_target: WirePath | None = None
    first: Text | None = None
    last: Text | None = None
    attributes: Attributes | None = None
    """None where they are not known."""


class DifferenceRow(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="row", tag="difference"):
    """A path that differs between two snapshots. A side without it is omitted."""

    path: WirePath
    change: Literal["added", "removed", "changed"]
    before: FileRow | None = None
    after: FileRow | None = None


class BrowseEnd(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="row", tag="browse-end"):
    """The end of the rows: all were sent, or as many as ``limit``. With the snapshot shown and the remarks on it."""

    is_cut: bool = False
    snapshot: str | None = None
    other: str | None = None
    remarks: Annotated[list[str], Meta(max_length=REMARKS_LIMIT)] = []


class ParentDirectory(msgspec.Struct, frozen=True, array_like=True):
    """A directory above a requested path, which the agent creates if it is missing."""

    path: WirePath
    mode: Count
    uid: Count
    gid: Count
    modified: WireTime

    has_acl: bool = False
    """True when it has an ACL, which is not sent. ``mode`` then allows no more than the ACL."""


class RestorePlan(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="row", tag="plan"):
    """The plan of a restore, with totals of all that will be written. ``files`` counts all entries but directories.

    Totals are None where counting would take long.
    """

    snapshot: str
    moment: str | None = None
    files: Count | None = None
    size_bytes: Count | None = None
    parents: list[ParentDirectory] = []
    is_by_xxh128: bool = False
    """True when rsync checks transferred files by xxh128, the checksum of the catalog."""
    remarks: Annotated[list[str], Meta(max_length=REMARKS_LIMIT)] = []
    """Sentences that warn of the snapshot: it is empty, quarantined, or dated by a wrong clock."""
    has_labels: bool = False
    """True when its files have SELinux labels, which are sent with the privileged attributes."""
    copy_bytes: Count | None = None
    """Disk space of the files, without holes and with hard links counted once."""
    kept: list[Settable] = []
    """Properties that the snapshot preserves. A file without one of them had none on the machine."""


class ManifestEntry(msgspec.Struct, frozen=True, array_like=True):
    """The expected state of one path.

    ``checksum`` is the one that the storage recorded at the backup. A file without one cannot be verified. ``is_sent``
    is False for a file that was there already. ``target`` is that of a link.
    """

    path: WirePath
    kind: Kind
    size_bytes: Count
    modified: WireTime
    is_sent: bool
    checksum: Checksum | None
    target: WirePath | None = None
    attributes: Attributes | None = None
    """None if the storage does not know them."""


class Manifest(msgspec.Struct, frozen=True, tag_field="row", tag="manifest"):
    """A part of the written entries, in the order in which rsync writes them."""

    entries: list[ManifestEntry]


class UnsetEntry(msgspec.Struct, frozen=True, array_like=True):
    """The attributes of one path that the machine cannot set.

    ``group`` has the permissions of its group, 0 to 7, if the path has an ACL whose mode would allow more.
    """

    path: WirePath
    names: Annotated[list[Annotated[str, Meta(max_length=255)]], Meta(max_length=UNSET_NAMES_LIMIT)]
    group: Annotated[int, Meta(ge=0, le=7)] | None = None


class Unset(msgspec.Struct, frozen=True, tag_field="row", tag="unset"):
    """Paths with properties that the machine cannot set (``FileRestoreRequest.sets``)."""

    entries: list[UnsetEntry]


class Deleted(msgspec.Struct, frozen=True, tag_field="row", tag="deleted"):
    """Paths that were removed from the target."""

    paths: list[WirePath]


class WithHoles(msgspec.Struct, frozen=True, tag_field="row", tag="with-holes"):
    """Sparse files, which are sent without holes. Sent before the first manifest, to an agent that makes holes."""

    paths: Annotated[list[WirePath], Meta(max_length=WITH_HOLES_AT_ONCE)]


class RestoreEnd(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="row", tag="restore-end"):
    """The end of a restore: rsync's exit code (None for a list), its meaning, and rsync's last lines.

    ``lost`` names paths of the catalog that the stored files lack. ``lost_count`` is the number of all of them.
    """

    rsync_exit_code: int | None = None
    meaning: str = ""
    last_lines: list[str] = []
    lost: Annotated[list[WirePath], Meta(max_length=LOST_LIMIT)] = []
    lost_count: Count = 0
    too_long: Annotated[list[WirePath], Meta(max_length=PATHS_LIMIT)] = []
    """Requested paths with names longer than the storage's rsync takes."""


class Refusal(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="row", tag="refusal"):
    """The reason for no (further) answer: the parts of a ``TurkuError``, with its code."""

    code: Text
    message: str
    details: str = ""
    hint: str = ""


Answer = (
    SnapshotRow
    | FileRow
    | DifferenceRow
    | BrowseEnd
    | RestorePlan
    | Manifest
    | WithHoles
    | Unset
    | Deleted
    | RestoreEnd
    | Refusal
)


# --- storage to coordinator: storage_access_request


class StorageAccessRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """The question if ``machine`` may browse or restore ``source`` of ``of_machine`` (None: its own).

    ``request`` is the coordinator's id of a restore request. ``resolved`` is the name of the snapshot to which the
    storage resolved the choice of the request. The first name that is reported is final.
    """

    storage: StorageCredentials
    machine: MachineReference
    action: Literal["browse", "restore"]
    source: Text
    of_machine: Text | None = None
    request: Text | None = None
    resolved: Text | None = None


class StorageAccessAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """The grant, or the ``reason`` for its refusal.

    A grant for a ``request`` is limited to its ``paths`` (none: the whole source) and its ``snapshot``, with the name
    to which that was ``resolved``. A grant without a request is for any snapshot.
    """

    allowed: bool
    reason: Text | None = None
    paths: list[WirePath] = []
    snapshot: SnapshotChoice | None = None
    resolved: Text | None = None
