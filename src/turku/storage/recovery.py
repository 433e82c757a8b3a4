"""A machine gets files back: rsync pushes from a snapshot's tree, contained, into the module that the agent opened.

Beside the transfer goes the manifest: for each file that rsync takes up, in its order, what it has to be. The agent
compares. rsync's own words about what it reads here stand in where a backup left no checksum.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO

from turku.core import rsync_checksums
from turku.core.cancellation import NEVER, Cancellation
from turku.core.line_reading import lines_of
from turku.core.log import one_line
from turku.core.secret import Secret
from turku.protocol.messages import SourceCredentials
from turku.protocol.restore_messages import (
    MODULE,
    PARTIAL_DIRECTORY,
    TEMPORARY_DIRECTORY,
    Deleted,
    Manifest,
    ManifestEntry,
    ParentDirectory,
    RecoverEnd,
    RecoverPlan,
    RecoverRequest,
    wire_path,
)
from turku.storage import changes, rsync_exit, sandbox, transfer
from turku.storage.answers import Answers
from turku.storage.catalog import Entry
from turku.storage.changes import Line
from turku.storage.configuration import Storage
from turku.storage.kept_tree import KeptTree
from turku.storage.recorded_entries import RecordedEntries

_BATCH = 400
_NO_TIME_LIMIT_SECONDS = 10 * 365 * 24 * 3600.0
_LAST_LINES = 25
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recovery:
    """What goes back, everything in it checked: ``paths`` are relative and there, none for the whole tree."""

    kept: KeptTree
    paths: tuple[bytes, ...]
    request: RecoverRequest
    by_xxh128: bool

    @classmethod
    def of(cls, configuration: Storage, kept: KeptTree, paths: Sequence[bytes], request: RecoverRequest) -> Recovery:
        by_xxh128 = request.knows_xxh128 and rsync_checksums.knows_xxh128(configuration.rsync_command)
        return cls(kept, tuple(paths), request, by_xxh128)


def plan(configuration: Storage, recovery: Recovery) -> RecoverPlan:
    """What is about to be written."""
    kept = recovery.kept
    with RecordedEntries(configuration, kept) as recorded:
        totals = recorded.totals(recovery.paths)
        parents = [
            ParentDirectory(wire_path(path), found.mode, found.uid, found.gid, found.mtime_ns)
            for path in _parents(recovery.paths)
            if (found := recorded.now(path)) is not None
        ]
    return RecoverPlan(
        kept.name,
        moment=None if kept.moment is None else kept.moment.astimezone(configuration.zone).isoformat(),
        files=None if totals is None else totals[0],
        size_bytes=None if totals is None else totals[1],
        parents=parents,
        is_by_xxh128=recovery.by_xxh128,
    )


def _parents(paths: Iterable[bytes]) -> list[bytes]:
    found: dict[bytes, None] = {}
    for path in paths:
        parts = path.split(b"/")[:-1]
        for length in range(1, len(parts) + 1):
            found[b"/".join(parts[:length])] = None
    return list(found)


def list_only(configuration: Storage, recovery: Recovery, answers: Answers) -> None:
    """Send the manifest of all that would be considered."""
    with RecordedEntries(configuration, recovery.kept) as recorded:
        batch: list[ManifestEntry] = []
        for found in recorded.all(recovery.paths):
            batch.append(_entry(found.path, found, is_sent=False, read_now=None))
            if len(batch) == _BATCH:
                answers.send(Manifest(batch))
                batch = []
        answers.send(Manifest(batch))
    answers.send(RecoverEnd())


def arguments(configuration: Storage, recovery: Recovery, *, port: int, username: str) -> list[str]:
    """The argument list; to be run in the tree. Raises PolicyError as ``transfer.require_user`` does."""
    request = recovery.request
    overwrite = {"never": ["--ignore-existing"], "older": ["--update"], "always": []}[request.overwrite]
    return [
        *configuration.rsync_command,
        "--archive",
        "--numeric-ids",
        # Twice: what is there already is named too, for the agent to check.
        "--itemize-changes",
        "--itemize-changes",
        f"--out-format={changes.OUT_FORMAT}",
        "--no-human-readable",
        "--no-motd",
        "--8-bit-output",
        f"--timeout={transfer.SILENCE_TIMEOUT_SECONDS}",
        f"--contimeout={transfer.CONNECT_TIMEOUT_SECONDS}",
        "--modify-window=-1",
        *([rsync_checksums.XXH128] if recovery.by_xxh128 else []),
        *(["--hard-links"] if request.hard_links or configuration.preserve_hard_links else []),
        *(["--fake-super"] if is_fake_super(configuration) else []),
        *overwrite,
        *(["--checksum"] if request.compare_contents else []),
        *(["--delete-delay"] if request.delete else []),
        f"--temp-dir={TEMPORARY_DIRECTORY}",
        f"--partial-dir={PARTIAL_DIRECTORY}",
        f"--filter=- /{TEMPORARY_DIRECTORY}/",
        *(["--relative", "--no-implied-dirs"] if recovery.paths else []),
        "--",
        *(os.fsdecode(b"./" + path) for path in recovery.paths or (b"",)),
        f"rsync://{transfer.checked_user(username)}@127.0.0.1:{port}/{MODULE}/",
    ]


def is_fake_super(configuration: Storage) -> bool:
    """Whether trees here keep owners in extended attributes."""
    return os.geteuid() != 0 if configuration.fake_super is None else configuration.fake_super


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
        sandbox.sender(
            lambda _seen: arguments(configuration, recovery, port=port, username=credentials.username),
            configuration=configuration,
            tree=recovery.kept.path,
            port=port,
        ) as sender,
        sender.start(
            password=Secret(credentials.password),
            on_line=lambda line: _LOG.warning("%s: %s", recovery.kept.place.source, line) if line else None,
        ) as child,
    ):
        reader = threading.Thread(
            target=_tell, args=(configuration, recovery, answers, child.stdout, others), daemon=True
        )
        reader.start()
        exit_code = child.wait(configuration.max_run_seconds or _NO_TIME_LIMIT_SECONDS, cancellation)
        reader.join()
        last_lines = [*others, *child.last_lines][-_LAST_LINES:]
    answers.send(RecoverEnd(exit_code, rsync_exit.outcome(exit_code).meaning, last_lines))
    _LOG.info("%s: rsync ended with exit code %d", recovery.kept.name, exit_code)


def _tell(configuration: Storage, recovery: Recovery, answers: Answers, stream: IO[bytes], others: deque[str]) -> None:
    """Read what rsync says to its end, and pass on what the agent has to know."""
    try:
        with RecordedEntries(configuration, recovery.kept) as recorded:
            for batch, deleted in _batches(stream, others):
                manifest = [
                    _entry(line.path, recorded.found(line.path), is_sent=is_sent, read_now=line)
                    for line, is_sent in batch
                    if line.file_type != b"d"
                ]
                answers.send_many(
                    [
                        *([Manifest(manifest)] if manifest else []),
                        *([Deleted([wire_path(path) for path in deleted])] if deleted else []),
                    ]
                )
    except Exception:
        # rsync must be read on, or it waits for ever; the agent misses what was not told, and says so.
        _LOG.exception("%s: the manifest is not told any further", recovery.kept.name)
        while stream.read(65536):
            pass


def _batches(stream: IO[bytes], others: deque[str]) -> Iterator[tuple[list[tuple[Line, bool]], list[bytes]]]:
    batch: list[tuple[Line, bool]] = []
    deleted: list[bytes] = []
    for raw in lines_of(stream, limit_bytes=changes.LINE_LIMIT_BYTES):
        line = changes.parse(raw) if raw.startswith(changes.MARK) else None
        if line is None:
            if text := one_line(raw.rstrip(b"\r\n")):
                others.append(text)
        elif line.is_deleted:
            deleted.append(line.path)
        else:
            batch.append((line, raw[len(changes.MARK) : len(changes.MARK) + 1] == b"<"))
        if len(batch) + len(deleted) == _BATCH:
            yield batch, deleted
            batch, deleted = [], []
    yield batch, deleted


def _entry(path: bytes, found: Entry | None, *, is_sent: bool, read_now: Line | None) -> ManifestEntry:
    checksum = None if found is None else found.checksum
    is_recorded = checksum is not None
    if checksum is None and read_now is not None and is_sent:
        checksum = read_now.checksum
    if found is None:
        return ManifestEntry(wire_path(path), "file", 0, 0, is_sent, is_recorded, checksum)
    return ManifestEntry(
        wire_path(path),
        found.kind.value,
        found.size,
        found.mtime_ns,
        is_sent,
        is_recorded,
        checksum,
        None if found.link_target is None else wire_path(found.link_target),
    )
