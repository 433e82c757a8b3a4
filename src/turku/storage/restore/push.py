"""The push of a restore: a contained rsync sends the files into the module that the agent opened.

The manifest goes beside the transfer: it says for each file that rsync takes up, in that order, what the file must be,
and the agent compares. rsync names those files in the same stream as messages of the machine's daemon. Its own lines
therefore begin with a secret word that is drawn for each session. The content of the manifest never comes from that
stream.
"""

import logging
import os
from collections import deque
from collections.abc import Iterator
from typing import IO

from turku.core.cancellation import NEVER, Cancellation
from turku.core.filesystem import posix_acl
from turku.core.log import one_line
from turku.core.program_output.bounded_log import bounded_log
from turku.core.program_output.line_reading import lines_of
from turku.core.secret import Secret
from turku.policy import compression
from turku.protocol import rsync_checksums
from turku.protocol.jsonlines import JsonLines
from turku.protocol.messages import SourceCredentials
from turku.protocol.restore_messages import (
    MODULE,
    PARTIAL_SUFFIX,
    UNSET_NAMES_LIMIT,
    WITH_HOLES_AT_ONCE,
    Deleted,
    FileRestoreRequest,
    Manifest,
    RestoreEnd,
    Settable,
    Unset,
    UnsetEntry,
    WithHoles,
    wire_path,
)
from turku.storage.config.model import ReceivingConfig, StorageConfig
from turku.storage.containment import capabilities, sandbox, watchdog
from turku.storage.restore import plan
from turku.storage.restore.plan import LostPaths, PreparedRestore
from turku.storage.restore.recorded_entries import RecordedEntries, is_fake_super
from turku.storage.restore.snapshot_lookup import SnapshotTree
from turku.storage.rsync import change_log, messages
from turku.storage.rsync.change_log import ItemizedLine
from turku.storage.rsync.request import (
    CONNECT_TIMEOUT_SECONDS,
    SILENCE_TIMEOUT_SECONDS,
    require_valid_username,
    should_compress,
    should_list_first,
)
from turku.storage.rsync.result import exit_status

_BATCH = 400
_NO_TIME_LIMIT_SECONDS = 10 * 365 * 24 * 3600.0
_LAST_LINES = 25
_LINE_SHOWN_BYTES = 4096
_NAME_SHOWN = 200
_WITH_ATTRIBUTES = (b"f", b"d", b"S", b"D")
_NAMES: dict[Settable, tuple[str, ...]] = {
    "acls": (posix_acl.ACCESS, posix_acl.DEFAULT),
    "attributes": ("user.",),
    "privileged": ("trusted.", "security."),
}
_LOG = logging.getLogger(__name__)


def push(
    configuration: StorageConfig,
    restore: PreparedRestore,
    answers: JsonLines,
    *,
    port: int,
    credentials: SourceCredentials,
    cancellation: Cancellation = NEVER,
) -> None:
    """Push the files, and send the manifest, the deletions and the result beside it.

    Raises CommandFailed if rsync cannot be started, InvalidValue for an invalid user name, BackupFailed if no daemon
    answers, ConfigurationError if the sandbox is required and not available.
    """
    snapshot = restore.snapshot
    if restore.with_holes:
        _LOG.info("%s: the agent makes the holes of %d files", snapshot.name, len(restore.with_holes))
        for start in range(0, len(restore.with_holes), WITH_HOLES_AT_ONCE):
            paths = restore.with_holes[start : start + WITH_HOLES_AT_ONCE]
            answers.send(WithHoles([wire_path(path) for path in paths]))
    others: deque[str] = deque(maxlen=_LAST_LINES)
    lost = LostPaths()
    with (
        bounded_log(_LOG, snapshot.place.source, kind=messages.kind_of) as log,
        sandbox.contained_rsync(
            lambda _seen: arguments(configuration.receiving, restore, port=port, username=credentials.username),
            configuration=configuration,
            directory=snapshot.path,
            capabilities=capabilities.of_sender(configuration.receiving),
            root=restore.root,
            port=port,
            password=Secret(credentials.password),
            on_line=lambda line: log(line) if line else None,
        ) as child,
    ):
        with watchdog.output_reader(
            child, lambda stream: _report(configuration, restore, answers, stream, others, lost=lost)
        ):
            exit_code = child.wait(configuration.limits.max_run_seconds or _NO_TIME_LIMIT_SECONDS, cancellation)
        # The machine does not learn where the tree lies. The tree of an unchanged source has another snapshot's name.
        last_lines = [line.replace(str(snapshot.path), "") for line in (*others, *child.last_lines)][-_LAST_LINES:]
    meaning = exit_status(exit_code).meaning
    too_long = [wire_path(path) for path in restore.long_paths]
    answers.send(RestoreEnd(exit_code, meaning, last_lines, lost=lost.named, lost_count=lost.count, too_long=too_long))
    if lost.count:
        _LOG.warning("%s: %d paths of the catalog are lost: the tree lacks them", snapshot.name, lost.count)
    _LOG.info("%s: rsync ended with exit code %d", snapshot.name, exit_code)


def arguments(configuration: ReceivingConfig, restore: PreparedRestore, *, port: int, username: str) -> list[str]:
    """Return the arguments of rsync, to be run in the tree. Raises InvalidValue as ``require_valid_username`` does."""
    request = restore.request
    overwrite = {"never": ["--ignore-existing"], "older": ["--update"], "always": []}[request.overwrite]
    return [
        *configuration.rsync_command,
        "--archive",
        "--numeric-ids",
        # Twice, so that existing files are named too, for the agent to check.
        "--itemize-changes",
        "--itemize-changes",
        f"--out-format={restore.mark.decode()}{change_log.OUT_FORMAT}",
        "--no-human-readable",
        "--no-motd",
        "--8-bit-output",
        f"--timeout={SILENCE_TIMEOUT_SECONDS}",
        f"--contimeout={CONNECT_TIMEOUT_SECONDS}",
        "--modify-window=-1",
        *_compression(restore.snapshot),
        *(["--no-inc-recursive"] if should_list_first(restore.files) else []),
        *([rsync_checksums.XXH128] if restore.by_xxh128 else []),
        "--hard-links",
        *(["--sparse"] if restore.with_holes is None else []),
        *_attribute_options(configuration, request),
        *(["--fake-super"] if is_fake_super(configuration) else []),
        *overwrite,
        *(["--checksum"] if request.compare_contents else []),
        *(["--delete-delay"] if request.delete else []),
        f"--temp-dir={request.temporary}",
        f"--partial-dir={request.temporary}{PARTIAL_SUFFIX}",
        f"--filter=- /{request.temporary}/",
        *(["--relative", "--no-implied-dirs"] if restore.paths else []),
        "--",
        *(os.fsdecode(b"./" + path) for path in restore.paths or (b"",)),
        f"rsync://{require_valid_username(username)}@127.0.0.1:{port}/{MODULE}/",
    ]


def _attribute_options(configuration: ReceivingConfig, request: FileRestoreRequest) -> list[str]:
    """Return the options by which rsync sends what the machine can set, and nothing else."""
    sets = request.sets or []
    options = ["--acls"] if "acls" in sets else []
    if "attributes" in sets:
        # A file system's own attributes, such as ``btrfs.compression``, cannot be set on another one.
        names = ["+x user.*"]
        if "privileged" not in sets:
            names.insert(0, "-x user.rsync.*")
        elif not is_fake_super(configuration):
            names += ["+x trusted.*", "+x security.*"]
        options += ["--xattrs", *(f"--filter={name}" for name in (*names, "-x *"))]
    return options


def _compression(snapshot: SnapshotTree) -> list[str]:
    if not should_compress(snapshot.notes.compress, snapshot.notes):
        return []
    is_slow = compression.is_slow(snapshot.notes.bytes_per_second)
    return ["--compress", *([f"--compress-level={compression.THOROUGH_LEVEL}"] if is_slow else [])]


def _report(
    configuration: StorageConfig,
    restore: PreparedRestore,
    answers: JsonLines,
    stream: IO[bytes],
    others: deque[str],
    *,
    lost: LostPaths,
) -> None:
    """Read rsync's output to its end, and report it to the agent. Collect the ``lost`` paths."""
    try:
        with restore.recorded(configuration) as recorded:
            lacking = _lacking(restore.request)
            for batch, deleted in _batches(stream, restore.mark, others):
                unset = [
                    entry
                    for line, _is_sent in batch
                    if lacking
                    and line.file_type in _WITH_ATTRIBUTES
                    and (entry := _unset(recorded, line.path, lacking))
                ]
                manifest = [
                    plan.manifest_entry(found, is_sent=is_sent)
                    for line, is_sent in batch
                    if line.file_type != b"d" and (found := recorded.expected(line.path)) is not None
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
        # rsync must be read on, or it waits for ever. The agent notices what it was not told, and says so.
        _LOG.exception("%s: the manifest cannot be sent any further", restore.snapshot.name)
        while stream.read(65536):
            pass


def _lacking(request: FileRestoreRequest) -> tuple[str, ...]:
    """Return the prefixes of attributes that the machine knows it cannot set."""
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
) -> Iterator[tuple[list[tuple[ItemizedLine, bool]], list[bytes]]]:
    batch: list[tuple[ItemizedLine, bool]] = []
    deleted: list[bytes] = []
    rest = b""
    for piece in lines_of(stream, limit_bytes=change_log.LINE_LIMIT_BYTES):
        # The machine's messages may lack line breaks, so a line of rsync's begins at its mark.
        before, found, own = (rest + piece).partition(mark)
        rest = b""
        if not piece.endswith(b"\n"):
            rest = found + own if found else before[-_LINE_SHOWN_BYTES:]
            continue
        line = change_log.parse(own)
        if text := one_line(before.rstrip(b"\r\n")):
            others.append(text)
        if line is None:
            continue
        if line.is_deleted:
            deleted.append(line.path)
        else:
            batch.append((line, own.startswith(change_log.MARKER + b"<")))
        if len(batch) + len(deleted) == _BATCH:
            yield batch, deleted
            batch, deleted = [], []
    if rest:
        others.append(one_line(rest))
    yield batch, deleted
