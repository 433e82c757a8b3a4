"""A machine gets files back: rsync pushes from a snapshot's tree, contained, into the module that the agent opened.

Beside the transfer goes the manifest: for each file that rsync takes up, in its order, what it has to be. The agent
compares. rsync says which files it takes up in the stream in which the messages of the machine's daemon come too: its
own lines begin with a word that is drawn for each session and told to nobody. What a file has to be is never taken from
that stream.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, get_args

from turku.core import extended_attributes, posix_acl, rsync_checksums
from turku.core.bounded_log import bounded_log
from turku.core.cancellation import NEVER, Cancellation
from turku.core.directory_tree import Tree
from turku.core.line_reading import lines_of
from turku.core.log import one_line
from turku.core.secret import Secret
from turku.errors import NotInHistory
from turku.policy import compression
from turku.protocol.messages import SourceCredentials
from turku.protocol.restore_messages import (
    LOST_LIMIT,
    LOST_LIMIT_BYTES,
    MODULE,
    PARTIAL_DIRECTORY,
    REMARK_LIMIT,
    REMARKS_LIMIT,
    TEMPORARY_DIRECTORY,
    UNSET_NAMES_LIMIT,
    Deleted,
    Manifest,
    ManifestEntry,
    ParentDirectory,
    RecoverEnd,
    RecoverPlan,
    RecoverRequest,
    Settable,
    Unset,
    UnsetEntry,
    WirePath,
    path_bytes,
    wire_path,
    wire_time,
)
from turku.storage import changes, kept_tree, rsync_exit, rsync_messages, sandbox, transfer
from turku.storage.answers import Answers
from turku.storage.catalog import Entry, Scope
from turku.storage.changes import Line
from turku.storage.configuration import Storage
from turku.storage.history_view import HistoryView
from turku.storage.kept_tree import KeptTree
from turku.storage.recorded_entries import RecordedEntries, is_fake_super

_BATCH = 400
_NO_TIME_LIMIT_SECONDS = 10 * 365 * 24 * 3600.0
_LAST_LINES = 25
_LINE_SHOWN_BYTES = 4096
_NAME_SHOWN = 200
_PATH_SHOWN = 100
_ARGUMENT_LIMIT_BYTES = 4095
_SHORT_BYTES = 1024
"""No directory of snapshots is so deep that a path of this length would be too long."""
_WITH_ATTRIBUTES = (b"f", b"d", b"S", b"D")
_NAMES: dict[Settable, tuple[str, ...]] = {
    "acls": (posix_acl.ACCESS, posix_acl.DEFAULT),
    "attributes": ("user.",),
    "privileged": ("trusted.", "security."),
}
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recovery:
    """What goes back, everything in it checked: ``paths`` are relative and there, none for the whole tree."""

    kept: KeptTree
    root: int
    """The tree's directory, open from the plan to the end: what was planned is what is sent."""
    paths: tuple[bytes, ...]
    scope: Scope
    """What the session may be told of."""
    request: RecoverRequest
    by_xxh128: bool
    lost_paths: tuple[bytes, ...] = ()
    """Paths asked for that only the catalog has."""
    long_paths: tuple[bytes, ...] = ()
    """Paths asked for that rsync would not take as arguments."""
    files: int | None = None
    """The number of those that go back. None is not known."""
    mark: bytes = field(default_factory=lambda: secrets.token_hex(16).encode("ascii"))
    """What rsync's own lines begin with; no machine is told."""

    def recorded(self, configuration: Storage) -> RecordedEntries:
        """Return what goes back, entry by entry."""
        return RecordedEntries(configuration, self.kept, self.root, (*self.paths, *self.lost_paths))


@contextmanager
def prepared(configuration: Storage, view: HistoryView, request: RecoverRequest) -> Iterator[Recovery]:
    """What goes back by this request, for the length of the block. Raises NotInHistory, PolicyError."""
    kept = view.choose(request.snapshot)
    by_xxh128 = request.knows_xxh128 and rsync_checksums.knows_xxh128(configuration.rsync_command)
    with Tree(kept.path) as tree:
        asked = [path_bytes(path) for path in request.paths]

        def is_recorded(path: bytes) -> bool:
            with RecordedEntries(configuration, kept, tree.root, [path]) as recorded:
                return recorded.is_recorded(path)

        paths = kept_tree.checked_paths(kept, tree, asked, view.scope, is_recorded=is_recorded)
        long = _too_long(configuration, kept, paths.there)
        if long and len(long) == len(paths.there):
            raise NotInHistory(
                f"{kept_tree.shown(long[0][:_PATH_SHOWN])}... is too long to be restored by its name",
                hint="restore a directory above it",
            )
        there = tuple(path for path in paths.there if path not in long)
        yield Recovery(kept, tree.root, there, view.scope, request, by_xxh128, paths.lost, long)


def _too_long(configuration: Storage, kept: KeptTree, paths: Iterable[bytes]) -> tuple[bytes, ...]:
    """Return the paths that rsync refuses as arguments: it puts the directory that it works in before each."""
    long = [path for path in paths if len(path) > _SHORT_BYTES]
    if not long:
        return ()
    directory = sandbox.HERE if sandbox.is_contained(configuration) else kept.path
    limit = _ARGUMENT_LIMIT_BYTES - len(os.fsencode(directory)) - 1
    return tuple(path for path in long if len(path) > limit)


def plan(configuration: Storage, recovery: Recovery) -> RecoverPlan:
    """Return what is about to be written."""
    kept = recovery.kept
    with recovery.recorded(configuration) as recorded:
        totals = recorded.totals()
        copy_bytes = recorded.copy_bytes()
        parents = [
            _parent(recovery, recorded, path, found)
            for path in _parents(recovery.paths)
            if (found := recorded.now(path)) is not None
        ]
    return RecoverPlan(
        kept.name,
        moment=None if kept.moment is None else kept.moment.astimezone(configuration.zone).isoformat(),
        files=None if totals is None else totals[0],
        size_bytes=None if totals is None else totals[1],
        # Where SELinux is at work it gives a label to every file, the source's own directory among them.
        has_labels=extended_attributes.has_kept_label(recovery.root),
        copy_bytes=copy_bytes,
        parents=parents,
        is_by_xxh128=recovery.by_xxh128,
        temporary=recovery.request.temporary,
        remarks=_remarks(recovery, None if totals is None else totals[0]),
        kept=[kind for kind in get_args(Settable) if kind in kept.notes.preserved],
    )


def _parent(recovery: Recovery, recorded: RecordedEntries, path: bytes, found: Entry) -> ParentDirectory:
    names, group = recorded.beyond_mode(path)
    return ParentDirectory(
        wire_path(path),
        found.mode if group is None else posix_acl.narrowed(found.mode, group),
        found.uid,
        found.gid,
        *wire_time(_time_shown(recovery, path, found)),
        has_acl=posix_acl.ACCESS in names or posix_acl.DEFAULT in names,
    )


def _remarks(recovery: Recovery, files: int | None) -> list[str]:
    kept = recovery.kept
    is_empty = files == 0 and not recovery.paths
    found = [*kept.remarks, *([f"there is no file in {kept.name}"] if is_empty else [])]
    return [one_line(remark)[:REMARK_LIMIT] for remark in found][:REMARKS_LIMIT]


def _time_shown(recovery: Recovery, path: bytes, found: Entry) -> int:
    # A directory above the permitted paths is made as it was, and its time tells when something else in it changed.
    if recovery.scope.has_path(path) or recovery.kept.moment is None:
        return found.mtime_ns
    return int(recovery.kept.moment.timestamp()) * 1_000_000_000


def _parents(paths: Iterable[bytes]) -> list[bytes]:
    found: dict[bytes, None] = {}
    for path in paths:
        parts = path.split(b"/")[:-1]
        for length in range(1, len(parts) + 1):
            found[b"/".join(parts[:length])] = None
    return list(found)


def list_only(configuration: Storage, recovery: Recovery, answers: Answers) -> None:
    """Send the manifest of all that would be considered."""
    with recovery.recorded(configuration) as recorded:
        batch: list[ManifestEntry] = []
        lost = _Lost()
        for found in recorded.all():
            if found.version and recorded.is_lost(found):
                lost.add(found.path)
                continue
            batch.append(_entry(found, is_sent=False))
            if len(batch) == _BATCH:
                answers.send(Manifest(batch))
                batch = []
        answers.send(Manifest(batch))
    answers.send(RecoverEnd(lost=lost.named, lost_count=lost.count))


class _Lost:
    """Paths that the catalog lists and the tree lacks: all counted, and named as far as one answer holds them."""

    def __init__(self) -> None:
        self.named: list[WirePath] = []
        self.count = 0
        self._bytes = 0

    def add(self, path: bytes) -> None:
        self.count += 1
        self._bytes += len(path)
        if len(self.named) < LOST_LIMIT and self._bytes <= LOST_LIMIT_BYTES:
            self.named.append(wire_path(path))


def arguments(configuration: Storage, recovery: Recovery, *, port: int, username: str) -> list[str]:
    """The argument list; to be run in the tree. Raises PolicyError as ``transfer.require_user`` does."""
    request = recovery.request
    temporary = request.temporary or TEMPORARY_DIRECTORY
    partial = PARTIAL_DIRECTORY if request.temporary is None else f"{request.temporary}-partial"
    overwrite = {"never": ["--ignore-existing"], "older": ["--update"], "always": []}[request.overwrite]
    return [
        *configuration.rsync_command,
        "--archive",
        "--numeric-ids",
        # Twice: what is there already is named too, for the agent to check.
        "--itemize-changes",
        "--itemize-changes",
        f"--out-format={recovery.mark.decode()}{changes.OUT_FORMAT}",
        "--no-human-readable",
        "--no-motd",
        "--8-bit-output",
        f"--timeout={transfer.SILENCE_TIMEOUT_SECONDS}",
        f"--contimeout={transfer.CONNECT_TIMEOUT_SECONDS}",
        "--modify-window=-1",
        *_compression(recovery.kept),
        *(["--no-inc-recursive"] if transfer.is_listed_at_once(recovery.files) else []),
        *([rsync_checksums.XXH128] if recovery.by_xxh128 else []),
        "--hard-links",
        "--sparse",
        *_attribute_options(configuration, request),
        *(["--fake-super"] if is_fake_super(configuration) else []),
        *overwrite,
        *(["--checksum"] if request.compare_contents else []),
        *(["--delete-delay"] if request.delete else []),
        f"--temp-dir={temporary}",
        f"--partial-dir={partial}",
        f"--filter=- /{temporary}/",
        *(["--relative", "--no-implied-dirs"] if recovery.paths else []),
        "--",
        *(os.fsdecode(b"./" + path) for path in recovery.paths or (b"",)),
        f"rsync://{transfer.checked_user(username)}@127.0.0.1:{port}/{MODULE}/",
    ]


def _attribute_options(configuration: Storage, request: RecoverRequest) -> list[str]:
    """Return the options by which rsync sends what the machine can set, and nothing else."""
    sets = request.sets or []
    options = ["--acls"] if "acls" in sets else []
    if "attributes" in sets:
        # What a file system calls its own, as ``btrfs.compression``, cannot be set on another one.
        names = ["+x user.*"]
        if "privileged" not in sets:
            names.insert(0, "-x user.rsync.*")
        elif not is_fake_super(configuration):
            names += ["+x trusted.*", "+x security.*"]
        options += ["--xattrs", *(f"--filter={name}" for name in (*names, "-x *"))]
    return options


def _compression(kept: KeptTree) -> list[str]:
    if not transfer.is_compressed(kept.notes.compress, kept.notes):
        return []
    is_slow = compression.is_slow(kept.notes.bytes_per_second)
    return ["--compress", *([f"--compress-level={compression.THOROUGH_LEVEL}"] if is_slow else [])]


def push(
    configuration: Storage,
    recovery: Recovery,
    answers: Answers,
    *,
    port: int,
    credentials: SourceCredentials,
    cancellation: Cancellation = NEVER,
) -> None:
    """Push, and send the manifest beside it, deletions, and how it ended.

    Raises CommandFailed when rsync cannot be started, PolicyError for a user name that is none, BackupFailed when no
    daemon answers, ConfigurationError when the sandbox is required and cannot be had.
    """
    others: deque[str] = deque(maxlen=_LAST_LINES)
    with (
        bounded_log(_LOG, recovery.kept.place.source, kind=rsync_messages.kind_of) as log,
        sandbox.sender(
            lambda _seen: arguments(configuration, recovery, port=port, username=credentials.username),
            configuration=configuration,
            tree=recovery.kept.path,
            root=recovery.root,
            port=port,
        ) as sender,
        sender.start(
            password=Secret(credentials.password),
            on_line=lambda line: log(line) if line else None,
        ) as child,
    ):
        lost = _Lost()
        with sandbox.followed(child, lambda stream: _tell(configuration, recovery, answers, stream, others, lost=lost)):
            exit_code = child.wait(configuration.max_run_seconds or _NO_TIME_LIMIT_SECONDS, cancellation)
        # Where the tree lies is nobody's business, and one of an unchanged source has another snapshot's name.
        last_lines = [line.replace(str(recovery.kept.path), "") for line in (*others, *child.last_lines)][-_LAST_LINES:]
    meaning = rsync_exit.outcome(exit_code).meaning
    too_long = [wire_path(path) for path in recovery.long_paths]
    answers.send(RecoverEnd(exit_code, meaning, last_lines, lost=lost.named, lost_count=lost.count, too_long=too_long))
    if lost.count:
        _LOG.warning("%s: %d paths of the catalog are lost: the tree lacks them", recovery.kept.name, lost.count)
    _LOG.info("%s: rsync ended with exit code %d", recovery.kept.name, exit_code)


def _tell(
    configuration: Storage,
    recovery: Recovery,
    answers: Answers,
    stream: IO[bytes],
    others: deque[str],
    *,
    lost: _Lost,
) -> None:
    """Read what rsync says to its end, and pass on what the agent has to know; take note of what is ``lost``."""
    try:
        with recovery.recorded(configuration) as recorded:
            lacking = _lacking(recovery.request)
            for batch, deleted in _batches(stream, recovery.mark, others):
                unset = [
                    entry
                    for line, _is_sent in batch
                    if lacking
                    and line.file_type in _WITH_ATTRIBUTES
                    and (entry := _unset(recorded, line.path, lacking))
                ]
                manifest = [
                    _entry(found, is_sent=is_sent)
                    for line, is_sent in batch
                    if line.file_type != b"d" and (found := recorded.found(line.path)) is not None
                ]
                answers.send_many(
                    [
                        *([Manifest(manifest)] if manifest else []),
                        *([Unset(unset)] if unset else []),
                        *([Deleted([wire_path(path) for path in deleted])] if deleted else []),
                    ]
                )
            for path in recorded.lost(names_files=not recorded.has_named_all()):
                lost.add(path)
    except Exception:
        # rsync must be read on, or it waits for ever; the agent misses what was not told, and says so.
        _LOG.exception("%s: the manifest is not told any further", recovery.kept.name)
        while stream.read(65536):
            pass


def _lacking(request: RecoverRequest) -> tuple[str, ...]:
    """Return the beginnings of the names of attributes that the machine cannot set, and knows that it cannot."""
    if request.sets is None:
        return ()
    return tuple(name for kind, names in _NAMES.items() if kind not in request.sets for name in names)


def _unset(recorded: RecordedEntries, path: bytes, lacking: tuple[str, ...]) -> UnsetEntry | None:
    names, group = recorded.beyond_mode(path)
    lost = [name for name in names if name.startswith(lacking)]
    if not lost:
        return None
    shown = [name.encode("utf-8", "backslashreplace").decode()[:_NAME_SHOWN] for name in lost]
    return UnsetEntry(wire_path(path), shown[:UNSET_NAMES_LIMIT], group if posix_acl.ACCESS in lost else None)


def _batches(
    stream: IO[bytes], mark: bytes, others: deque[str]
) -> Iterator[tuple[list[tuple[Line, bool]], list[bytes]]]:
    batch: list[tuple[Line, bool]] = []
    deleted: list[bytes] = []
    rest = b""
    for piece in lines_of(stream, limit_bytes=changes.LINE_LIMIT_BYTES):
        # Messages of the machine's may lack their line breaks: a line of rsync's begins wherever its mark is.
        before, found, own = (rest + piece).partition(mark)
        rest = b""
        if not piece.endswith(b"\n"):
            rest = found + own if found else before[-_LINE_SHOWN_BYTES:]
            continue
        line = changes.parse(own)
        if text := one_line(before.rstrip(b"\r\n")):
            others.append(text)
        if line is None:
            continue
        if line.is_deleted:
            deleted.append(line.path)
        else:
            batch.append((line, own.startswith(changes.MARK + b"<")))
        if len(batch) + len(deleted) == _BATCH:
            yield batch, deleted
            batch, deleted = [], []
    if rest:
        others.append(one_line(rest))
    yield batch, deleted


def _entry(found: Entry, *, is_sent: bool) -> ManifestEntry:
    mtime_ns, exact_mtime = wire_time(found.mtime_ns)
    return ManifestEntry(
        wire_path(found.path),
        found.kind.value,
        found.size,
        mtime_ns,
        is_sent,
        found.checksum is not None,
        found.checksum,
        None if found.link_target is None else wire_path(found.link_target),
        exact_mtime,
        found.attributes,
    )
