"""rsync pushes what goes back (``recovery.py``), contained, into the module that the agent opened.

Files with holes go first, by a run of their own: asked for holes, rsync writes each kilobyte by itself. An agent that
takes one connection alone is sent everything at once, with a look for holes.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from turku.core import posix_acl, rsync_checksums
from turku.core.bounded_log import bounded_log
from turku.core.cancellation import NEVER, Cancellation
from turku.core.clock import SYSTEM_CLOCK, Clock
from turku.core.line_reading import lines_of
from turku.core.log import one_line
from turku.core.secret import Secret
from turku.policy import compression
from turku.protocol.messages import SourceCredentials
from turku.protocol.restore_messages import (
    MODULE,
    PARTIAL_DIRECTORY,
    TEMPORARY_DIRECTORY,
    UNSET_NAMES_LIMIT,
    Deleted,
    Manifest,
    RecoverEnd,
    RecoverRequest,
    Settable,
    Unset,
    UnsetEntry,
    wire_path,
)
from turku.storage import changes, recovery, rsync_exit, rsync_messages, sandbox, transfer
from turku.storage.answers import Answers
from turku.storage.changes import Line
from turku.storage.configuration import Storage
from turku.storage.kept_tree import KeptTree
from turku.storage.recorded_entries import RecordedEntries, is_fake_super
from turku.storage.recovery import LostPaths, Recovery

_BATCH = 400
_NO_TIME_LIMIT_SECONDS = 10 * 365 * 24 * 3600.0
_LAST_LINES = 25
_LINE_SHOWN_BYTES = 4096
_NAME_SHOWN = 200
_WITH_HOLES_LIMIT = 50_000
"""More files are not told apart, and each run asks for holes: their names are held in memory."""
_WITH_ATTRIBUTES = (b"f", b"d", b"S", b"D")
_NAMES: dict[Settable, tuple[str, ...]] = {
    "acls": (posix_acl.ACCESS, posix_acl.DEFAULT),
    "attributes": ("user.",),
    "privileged": ("trusted.", "security."),
}
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Extent:
    """What one run of rsync sends."""

    files: Sequence[bytes] | None = None
    """These files alone; None is all that goes back."""
    makes_holes: bool = True
    sent_before: Collection[bytes] = frozenset()
    """Files that an earlier run sent."""

    @property
    def text(self) -> str:
        """For the log."""
        if self.files is not None:
            return f"{len(self.files)} files with holes are sent first"
        return "everything is sent, with a look for holes" if self.makes_holes else "what has no holes is sent"

    def tells(self, line: Line, *, is_sent: bool) -> bool:
        """Return True where the agent is to know of the line, as it does not by an earlier run or will not by a later.

        Directories come again with the run of everything. A file that was sent before is named again where it is sent
        again.
        """
        if self.files is not None:
            return line.file_type != b"d"
        return is_sent or line.path not in self.sent_before


def extents(configuration: Storage, going_back: Recovery) -> list[Extent]:
    """Return the runs, in their order."""
    if not going_back.request.takes_two_connections:
        return [Extent()]
    with going_back.recorded(configuration) as recorded:
        with_holes = recorded.with_holes(_WITH_HOLES_LIMIT)
    if with_holes is None:
        return [Extent()]
    everything = Extent(makes_holes=False, sent_before=frozenset(with_holes))
    return [*([Extent(files=with_holes)] if with_holes else []), everything]


def push(
    configuration: Storage,
    going_back: Recovery,
    answers: Answers,
    *,
    port: int,
    credentials: SourceCredentials,
    cancellation: Cancellation = NEVER,
    clock: Clock = SYSTEM_CLOCK,
) -> None:
    """Push, and send the manifest beside it, deletions, and how it ended.

    Raises CommandFailed when rsync cannot be started, PolicyError for a user name that is none, BackupFailed when no
    daemon answers, ConfigurationError when the sandbox is required and cannot be had.
    """
    pushing = _Push(configuration, going_back, answers, port, credentials, cancellation)
    until_seconds = clock.monotonic_seconds() + (configuration.max_run_seconds or _NO_TIME_LIMIT_SECONDS)
    ended = _Ended()
    for extent in extents(configuration, going_back):
        _LOG.info("%s: %s", going_back.kept.name, extent.text)
        ended = ended.then(pushing.run(extent, max(1.0, until_seconds - clock.monotonic_seconds())))
        outcome = rsync_exit.outcome(ended.exit_code)
        if not (outcome.success or outcome.is_partial):
            break
    lost, too_long = pushing.lost, [wire_path(path) for path in going_back.long_paths]
    meaning = rsync_exit.outcome(ended.exit_code).meaning
    answers.send(
        RecoverEnd(
            ended.exit_code, meaning, ended.last_lines, lost=lost.named, lost_count=lost.count, too_long=too_long
        )
    )
    if lost.count:
        _LOG.warning("%s: %d paths of the catalog are lost: the tree lacks them", going_back.kept.name, lost.count)
    _LOG.info("%s: rsync ended with exit code %d", going_back.kept.name, ended.exit_code)


@dataclass(frozen=True)
class _Ended:
    """How runs ended."""

    exit_code: int = 0
    last_lines: list[str] = field(default_factory=list)

    def then(self, later: _Ended) -> _Ended:
        """Return how both ended: as the later one, unless that alone came to a good end."""
        return _Ended(later.exit_code or self.exit_code, [*self.last_lines, *later.last_lines][-_LAST_LINES:])


@dataclass
class _Push:
    """The runs of one restore."""

    configuration: Storage
    going_back: Recovery
    answers: Answers
    port: int
    credentials: SourceCredentials
    cancellation: Cancellation
    lost: LostPaths = field(default_factory=LostPaths)

    def run(self, extent: Extent, timeout_seconds: float) -> _Ended:
        """Run rsync once. Raises what ``push`` does."""
        kept, others = self.going_back.kept, deque[str](maxlen=_LAST_LINES)
        with (
            bounded_log(_LOG, kept.place.source, kind=rsync_messages.kind_of) as log,
            _listed(extent.files) as listed,
            sandbox.sender(
                lambda seen: arguments(
                    self.configuration,
                    self.going_back,
                    extent,
                    port=self.port,
                    username=self.credentials.username,
                    listed=None if listed is None else seen(listed),
                ),
                configuration=self.configuration,
                tree=kept.path,
                root=self.going_back.root,
                port=self.port,
                readable=[] if listed is None else [listed],
            ) as sender,
            sender.start(
                password=Secret(self.credentials.password),
                on_line=lambda line: log(line) if line else None,
            ) as child,
        ):
            with sandbox.followed(child, lambda stream: self._tell(extent, stream, others)):
                exit_code = child.wait(timeout_seconds, self.cancellation)
            # Where the tree lies is nobody's business, and one of an unchanged source has another snapshot's name.
            lines = [line.replace(str(kept.path), "") for line in (*others, *child.last_lines)]
        return _Ended(exit_code, lines[-_LAST_LINES:])

    def _tell(self, extent: Extent, stream: IO[bytes], others: deque[str]) -> None:
        """Read what rsync says to its end, and pass on what the agent has to know; take note of what is lost."""
        try:
            with self.going_back.recorded(self.configuration) as recorded:
                lacking = _lacking(self.going_back.request)
                for batch, deleted in _batches(stream, self.going_back.mark, others):
                    told = [(line, is_sent) for line, is_sent in batch if extent.tells(line, is_sent=is_sent)]
                    unset = [
                        entry
                        for line, _is_sent in told
                        if lacking
                        and line.file_type in _WITH_ATTRIBUTES
                        and (entry := _unset(recorded, line.path, lacking))
                    ]
                    manifest = [
                        recovery.manifest_entry(found, is_sent=is_sent)
                        for line, is_sent in told
                        if line.file_type != b"d" and (found := recorded.found(line.path)) is not None
                    ]
                    self.answers.send_many(
                        [
                            *([Manifest(manifest)] if manifest else []),
                            *([Unset(unset)] if unset else []),
                            *([Deleted([wire_path(path) for path in deleted])] if deleted else []),
                        ]
                    )
                if extent.files is None:
                    for path in recorded.lost(names_files=not recorded.has_named_all(extent.sent_before)):
                        self.lost.add(path)
        except Exception:
            # rsync must be read on, or it waits for ever; the agent misses what was not told, and says so.
            _LOG.exception("%s: the manifest is not told any further", self.going_back.kept.name)
            while stream.read(65536):
                pass


@contextmanager
def _listed(files: Sequence[bytes] | None) -> Iterator[Path | None]:
    """Yield a private file with the paths, a NUL after each; None where there is no list."""
    if files is None:
        yield None
        return
    with tempfile.NamedTemporaryFile(prefix="turku-push-") as stream:
        stream.writelines(path + b"\0" for path in files)
        stream.flush()
        yield Path(stream.name)


def arguments(
    configuration: Storage, going_back: Recovery, extent: Extent, *, port: int, username: str, listed: str | None
) -> list[str]:
    """Return the argument list, to be run in the tree; ``listed`` is where rsync sees the list of files.

    Raises PolicyError as ``transfer.require_user`` does.
    """
    request = going_back.request
    temporary = request.temporary or TEMPORARY_DIRECTORY
    partial = PARTIAL_DIRECTORY if request.temporary is None else f"{request.temporary}-partial"
    overwrite = {"never": ["--ignore-existing"], "older": ["--update"], "always": []}[request.overwrite]
    sent = ["--from0", f"--files-from={listed}"] if listed is not None else []
    paths = [b""] if listed is not None else going_back.paths or (b"",)
    return [
        *configuration.rsync_command,
        "--archive",
        "--numeric-ids",
        # Twice: what is there already is named too, for the agent to check.
        "--itemize-changes",
        "--itemize-changes",
        f"--out-format={going_back.mark.decode()}{changes.OUT_FORMAT}",
        "--no-human-readable",
        "--no-motd",
        "--8-bit-output",
        f"--timeout={transfer.SILENCE_TIMEOUT_SECONDS}",
        f"--contimeout={transfer.CONNECT_TIMEOUT_SECONDS}",
        "--modify-window=-1",
        *_compression(going_back.kept),
        *(["--no-inc-recursive"] if transfer.is_listed_at_once(going_back.files) else []),
        *([rsync_checksums.XXH128] if going_back.by_xxh128 else []),
        "--hard-links",
        *(["--sparse"] if extent.makes_holes else []),
        *_attribute_options(configuration, request),
        *(["--fake-super"] if is_fake_super(configuration) else []),
        *overwrite,
        *(["--checksum"] if request.compare_contents else []),
        *(["--delete-delay"] if request.delete and listed is None else []),
        f"--temp-dir={temporary}",
        f"--partial-dir={partial}",
        f"--filter=- /{temporary}/",
        *sent,
        *(["--relative", "--no-implied-dirs"] if going_back.paths else []),
        "--",
        *(os.fsdecode(b"./" + path) for path in paths),
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
