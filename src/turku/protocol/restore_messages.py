"""Looking at history and getting it back: what the agent asks of a storage, and the storage of the coordinator.

Beyond the contract. The agent sends one ``HistoryRequest`` as it sends the contract's request, on ssh's standard input.
The storage answers on standard output with one JSON object a line, each an ``Answer``; standard error stays its log.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from turku.protocol import session_framing
from turku.protocol.messages import MachineReference, SourceCredentials, StorageCredentials, Text

GO: Final = session_framing.GO
MODULE: Final = "turku-restore"
"""The agent's one writable module."""
TEMPORARY_DIRECTORY: Final = ".turku-restore"
"""In the target, made and removed by the agent: what the storage's rsync has half written."""
PARTIAL_DIRECTORY: Final = ".turku-restore-partial"
"""Beside a file that was interrupted: what there is of it."""
TemporaryName = Annotated[str, Meta(pattern=r"^\.turku-restore-[0-9a-f]{32}$")]
"""Instead of the two names above: this, and this with ``-partial``. No source has such names in it."""
ANSWER_LINE_LIMIT_BYTES: Final = 1024 * 1024
PATH_LIMIT_BYTES: Final = 16 * 1024
PATHS_LIMIT: Final = 1000
SOURCES_LIMIT: Final = 1000
REMARKS_LIMIT: Final = 20
REMARK_LIMIT: Final = 2000
"""Characters."""
WITH_HOLES_LIMIT: Final = 50_000
"""Files that are named as having holes, in all answers of a restore."""
WITH_HOLES_LIMIT_BYTES: Final = 8 * 1024 * 1024
"""Of their names."""
WITH_HOLES_AT_ONCE: Final = 400
"""In one answer."""
LOST_LIMIT: Final = 1000
"""Lost paths that are named in one answer; the others are counted."""
UNSET_NAMES_LIMIT: Final = 20
"""Names of attributes that are told of one path."""
LOST_LIMIT_BYTES: Final = 128 * 1024
"""Of their names, so that the answer stays one line."""

Count = Annotated[int, Meta(ge=0, le=2**62)]
Nanoseconds = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
ExactTime = tuple[Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)], Annotated[int, Meta(ge=0, lt=10**9)]]
"""Seconds and nanoseconds of a time that ``Nanoseconds`` do not hold. Beside it ``mtime_ns`` is the nearest they do."""
Attributes = Annotated[bytes, Meta(max_length=16)]
"""Digest of extended attributes and ACLs (``core.filesystem.extended_attributes``), empty if there are none."""
Checksum = Annotated[bytes, Meta(min_length=16, max_length=16)]
"""xxh128 of a file's content, as rsync prints it."""
Settable = Literal["acls", "attributes", "privileged"]
"""What a file has beside owner, mode and times: ACLs, attributes ``user.*``, and those that only root may set."""
Kind = Literal["file", "directory", "link", "fifo", "socket", "block", "character"]


class Base64Path(msgspec.Struct, frozen=True):
    """A path that is not UTF-8."""

    b64: Annotated[bytes, Meta(max_length=PATH_LIMIT_BYTES)]


WirePath = Annotated[str, Meta(max_length=PATH_LIMIT_BYTES)] | Base64Path
"""A path in JSON: as text where it is UTF-8. Paths in a source are relative to it, without ``./``; empty is itself."""


def wire_path(path: bytes) -> WirePath:
    """The path as it is sent."""
    try:
        return path.decode("utf-8")
    except UnicodeDecodeError:
        return Base64Path(path)


def path_bytes(path: WirePath) -> bytes:
    """The path that was sent. Names from the network: ``turku.policy.names.path_inside`` before it is used."""
    return path.encode("utf-8", "surrogatepass") if isinstance(path, str) else path.b64


def wire_time(time_ns: int) -> tuple[int, ExactTime | None]:
    """Return ``mtime_ns`` and ``exact_mtime`` of a message."""
    nearest = max(-(2**63), min(time_ns, 2**63 - 1))
    return nearest, None if nearest == time_ns else divmod(time_ns, 10**9)


def time_ns(mtime_ns: int, exact_mtime: ExactTime | None) -> int:
    """Return the time that was sent, in nanoseconds."""
    return mtime_ns if exact_mtime is None else exact_mtime[0] * 10**9 + exact_mtime[1]


# --- agent to storage: what is asked for


class SnapshotChoice(msgspec.Struct, frozen=True, omit_defaults=True):
    """A snapshot by its name, or the last one made until a moment (``at``: as people say it); neither: the latest.

    ``is_unfinished``: what there is of a source of which no backup was finished.
    """

    name: Text | None = None
    at: Text | None = None
    is_unfinished: bool = False


class BrowseRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something of history to be shown.

    ``snapshots`` of ``sources`` (the others take one), ``ls``: what ``path`` holds in ``snapshot``, all below it
    where ``is_recursive``, ``versions``: the versions of ``path``, ``find``: what ``pattern`` matches, ``diff``: from
    ``snapshot`` to ``other``.
    ``of_machine`` is another machine's UUID, ``request`` what the coordinator calls the request behind that.
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
    """Files to be written into the agent's module, or (``list_only``) listed; no ``paths`` are the whole source."""

    source: Text
    snapshot: SnapshotChoice = SnapshotChoice()
    paths: Annotated[list[WirePath], Meta(max_length=PATHS_LIMIT)] = []
    overwrite: Literal["never", "older", "always"] = "always"
    delete: bool = False
    hard_links: bool = False
    list_only: bool = False
    compare_contents: bool = False
    """Every file is read on both sides, for when size and time are not to be believed."""
    knows_xxh128: bool = False
    """Whether the agent's rsync checks what it receives by xxh128, so that what it says can be compared."""
    of_machine: Text | None = None
    request: Text | None = None
    temporary: TemporaryName | None = None
    """The name for what is half written; a storage that uses it says so in its plan."""
    sets: list[Settable] | None = None
    """What the machine can set where it restores to: this is sent, and what else files have is told (``Unset``). None
    is an agent that does not know of it: nothing of it is sent."""
    digs_holes: bool = False
    """Whether the agent makes holes in the files that ``WithHoles`` names; else rsync does in all files."""


class HistoryRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """A session's request, with the field that its action names. ``port`` and ``module`` are for a recovery that
    writes: the tunnel's port, and the credentials of ``MODULE`` behind it."""

    action: Literal["browse", "restore_files"]
    verbose: bool = False
    browse: BrowseRequest | None = None
    restore_files: FileRestoreRequest | None = None
    port: Annotated[int, Meta(ge=1024, le=65535)] | None = None
    module: SourceCredentials | None = None


# --- storage to agent: answers, one a line


class SnapshotRow(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="row", tag="snapshot"):
    """A snapshot; ``moment`` is ISO with zone, None where nobody knows. ``is_date_in_doubt``: the storage's clock was
    wrong, so that the snapshot is not taken for the latest. ``unread_files`` could not be read when it was made."""

    source: Text
    name: Text
    moment: Text | None = None
    files: Count | None = None
    size_bytes: Count | None = None
    is_held: bool = False
    is_quarantined: bool = False
    is_date_in_doubt: bool = False
    unread_files: Count = 0


class FileRow(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="row", tag="file"):
    """A path as it is in one snapshot, or one version of it with the first and last snapshot that has it."""

    path: WirePath
    kind: Kind
    size_bytes: Count = 0
    mode: Count = 0
    uid: Count = 0
    gid: Count = 0
    mtime_ns: Nanoseconds = 0
    checksum: Checksum | None = None
    link_target: WirePath | None = None
    first: Text | None = None
    last: Text | None = None
    exact_mtime: ExactTime | None = None
    attributes: Attributes | None = None
    """None where they are not known."""

    @property
    def modified_ns(self) -> int:
        """Return the exact time of the last change."""
        return time_ns(self.mtime_ns, self.exact_mtime)


class DifferenceRow(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="row", tag="difference"):
    """A path that two snapshots do not have alike; a side that does not have it is left out."""

    path: WirePath
    change: Literal["added", "removed", "changed"]
    before: FileRow | None = None
    after: FileRow | None = None


class BrowseEnd(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="row", tag="browse-end"):
    """All rows were sent, or as many as ``limit``; of which snapshot (``ls``, ``diff``), and what is to be known of
    it, as ``RecoverPlan.remarks``."""

    is_cut: bool = False
    snapshot: str | None = None
    other: str | None = None
    remarks: Annotated[list[str], Meta(max_length=REMARKS_LIMIT)] = []


class ParentDirectory(msgspec.Struct, frozen=True, array_like=True):
    """A directory above a path asked for: made by the agent where it is missing."""

    path: WirePath
    mode: Count
    uid: Count
    gid: Count
    mtime_ns: Nanoseconds
    exact_mtime: ExactTime | None = None

    has_acl: bool = False
    """Whether it has an ACL, which is not sent; ``mode`` then is one that allows no more than that."""

    @property
    def modified_ns(self) -> int:
        """Return the exact time of the last change."""
        return time_ns(self.mtime_ns, self.exact_mtime)


class RestorePlan(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="row", tag="plan"):
    """What is about to be written, in all; ``files`` are those that are no directories.

    Figures are None where counting would take long.
    """

    snapshot: str
    moment: str | None = None
    files: Count | None = None
    size_bytes: Count | None = None
    parents: list[ParentDirectory] = []
    is_by_xxh128: bool = False
    """rsync checks what it transfers by xxh128, as the catalog has it."""
    temporary: TemporaryName | None = None
    """The name of the request, where it is used."""
    remarks: Annotated[list[str], Meta(max_length=REMARKS_LIMIT)] = []
    """Sentences on why the snapshot may not be what somebody hopes for: it is empty, suspicious, of a wrong clock."""
    has_labels: bool = False
    """The snapshot was made of files with labels of SELinux, which are sent with the privileged attributes."""
    copy_bytes: Count | None = None
    """The disk space that the files take where holes take none, and a file with several names is there once."""
    kept: list[Settable] = []
    """What the snapshot was made with: a file of it that has none of this had none, and is to have none."""


class ManifestEntry(msgspec.Struct, frozen=True, array_like=True):
    """What one path has to be.

    ``checksum`` is what the storage recorded of the backup (``is_recorded``), None where it recorded none: the file
    then cannot be verified.
    ``is_sent`` is False for what was there already. ``target`` is a link's.
    """

    path: WirePath
    kind: Kind
    size_bytes: Count
    mtime_ns: Nanoseconds
    is_sent: bool
    is_recorded: bool
    checksum: Checksum | None
    target: WirePath | None = None
    exact_mtime: ExactTime | None = None
    attributes: Attributes | None = None
    """None where the storage does not know them."""

    @property
    def modified_ns(self) -> int:
        """Return the exact time of the last change."""
        return time_ns(self.mtime_ns, self.exact_mtime)


class Manifest(msgspec.Struct, frozen=True, tag_field="row", tag="manifest"):
    """A part of what is written, in the order in which rsync takes it up."""

    entries: list[ManifestEntry]


class UnsetEntry(msgspec.Struct, frozen=True, array_like=True):
    """What of one path cannot be set on the machine: the names of attributes.

    ``group`` is what the group may do, 0 to 7, where the path has an ACL, and its mode says more than that.
    """

    path: WirePath
    names: Annotated[list[Annotated[str, Meta(max_length=255)]], Meta(max_length=UNSET_NAMES_LIMIT)]
    group: Annotated[int, Meta(ge=0, le=7)] | None = None


class Unset(msgspec.Struct, frozen=True, tag_field="row", tag="unset"):
    """Paths that lose something of what they have, as the machine cannot set it (``RecoverRequest.sets``)."""

    entries: list[UnsetEntry]


class Deleted(msgspec.Struct, frozen=True, tag_field="row", tag="deleted"):
    """Paths that were removed from the target."""

    paths: list[WirePath]


class WithHoles(msgspec.Struct, frozen=True, tag_field="row", tag="with-holes"):
    """Files that have holes, and come without: before the first of a manifest, to an agent that makes them itself."""

    paths: Annotated[list[WirePath], Meta(max_length=WITH_HOLES_AT_ONCE)]


class RestoreEnd(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="row", tag="restore-end"):
    """How rsync ended: its exit code (None for a list), what that means, and its last lines.

    ``lost`` are paths that the storage's catalog lists in the snapshot and that its files lack, as far as they are
    named. ``lost_count`` is the number of all of them.
    """

    rsync_exit_code: int | None = None
    meaning: str = ""
    last_lines: list[str] = []
    lost: Annotated[list[WirePath], Meta(max_length=LOST_LIMIT)] = []
    lost_count: Count = 0
    too_long: Annotated[list[WirePath], Meta(max_length=PATHS_LIMIT)] = []
    """Paths that were asked for by names longer than the storage's rsync takes."""


class Refusal(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="row", tag="refusal"):
    """Why there is no (further) answer: the parts of a ``TurkuError``, by its code."""

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
    """May ``machine`` see (``look``) or have (``recover``) what is kept of ``source`` of ``of_machine`` (None: itself)?
    ``request`` is the coordinator's own name of a restore that was asked for there. ``resolved`` is the name of the
    snapshot that the storage takes the request's choice to mean; the first one that is told counts for good."""

    storage: StorageCredentials
    machine: MachineReference
    action: Literal["browse", "restore"]
    source: Text
    of_machine: Text | None = None
    request: Text | None = None
    resolved: Text | None = None


class StorageAccessAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """``reason`` says why not. With a ``request``, what of the source it is for: ``paths`` (none: all of it), the
    ``snapshot`` that was chosen when it was asked for, and the name that this choice was ``resolved`` to. Without a
    request ``snapshot`` is None: any."""

    allowed: bool
    reason: Text | None = None
    paths: list[WirePath] = []
    snapshot: SnapshotChoice | None = None
    resolved: Text | None = None
