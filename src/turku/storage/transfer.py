"""rsync's run against a machine's daemon: the command line, and what came of it.

Left out on purpose: ``--sparse`` and, where snapshots share files, ``--inplace``
(they would write into shared files), ACLs and extended attributes (an rsync built without them refuses, and a machine's
would have effects here).
"""

from __future__ import annotations

import itertools
import logging
import os
import re
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

import msgspec

from turku.core import command, durable
from turku.core.line_reading import lines_of
from turku.core.log import one_line
from turku.core.secret import Secret
from turku.errors import CommandFailed, PolicyError, TurkuError
from turku.policy import bandwidth
from turku.storage import changes, figures, limits, rsync_exit, rsync_version, sandbox
from turku.storage.changes import Line
from turku.storage.configuration import Storage
from turku.storage.snapshots import Workspace

SILENCE_TIMEOUT_SECONDS = 1800
CONNECT_TIMEOUT_SECONDS = 60
SUMMARY_LIMIT = 60_000
"""Characters; the protocol takes 65,536 (turku.protocol.messages.SourceReport)."""
_LINE_LIMIT = 1000
_LOGGED_LINES = 100
_LAST_LINES_TIMEOUT_SECONDS = 5.0
_CHECKSUM_IS = b"Client negotiated checksum: "
_TELLS_CHECKSUM = rsync_version.Version((3, 2, 0))
_RECEIVED = re.compile(r"Total bytes received: (\d+)")
_WRITE_BACK_SECONDS = 3.0
_TELLING_BYTES = 16 * 1024 * 1024
_USER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", re.ASCII)
_STATISTICS = (
    "Number of ",
    "Total ",
    "Literal data:",
    "Matched data:",
    "File list ",
    "sent ",
    "total size is ",
)
_AMOUNTS = ("Literal data:", "Matched data:", "File list ", "Total bytes ", "sent ", "total size is ")
"""Of what was sent, where a dry run sends nothing."""
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Daemon:
    """The machine's end of the tunnel."""

    port: int
    module: str
    username: str
    password: Secret


@dataclass(frozen=True)
class Selection:
    """What is transferred, and how fast; rules are rsync's own, already checked by policy."""

    rules: tuple[str, ...] = ()
    hard_links: bool = False
    bandwidth_kib_per_second: int | None = None
    bandwidth_limits: bandwidth.Limits = field(default_factory=bandwidth.Limits)
    """What limit holds when, where that depends on the time of day (pacing.py)."""
    stop_after_minutes: int | None = None
    """rsync ends by itself then, and leaves what it has for another one that goes on."""
    keeps_partial_files: bool = False
    """What there is of a file takes its place where rsync ends within it: of use to the next run."""
    compress: bool = False
    compare_contents: bool = False
    """Every file is read on both sides, for when size and time are not to be believed."""


@dataclass(frozen=True)
class Transferred:
    """How rsync ended, its statistics, and the last lines that were none."""

    outcome: rsync_exit.Outcome
    statistics: tuple[str, ...]
    last_lines: tuple[str, ...]
    suffixes: figures.Suffixes = field(default_factory=lambda: figures.Suffixes(None))
    seconds: float = 0.0
    """How long it took."""
    is_understood: bool = False
    """Whether each line about an entry could be read, so that what was handed on is all that rsync did."""
    is_continued: bool = False
    """Whether another rsync went on where one had stopped at the end of a bandwidth window."""
    taken_bytes: int = 0

    def with_traffic_of(self, later: Transferred) -> Transferred:
        """What a dry run said of the whole source, with the outcome and the amounts of data of the run after it."""
        amounts = [line for line in later.statistics if line.startswith(_AMOUNTS)]
        kept = [line for line in self.statistics if not line.startswith(_AMOUNTS)]
        return replace(later, statistics=(*kept, *amounts), suffixes=self.suffixes)

    @property
    def bytes_per_second(self) -> float | None:
        """What came over the way from the machine; None where too little came to tell."""
        found = [match for line in self.statistics if (match := _RECEIVED.match(line))]
        received = int(found[-1][1]) if found else 0
        return received / self.seconds if received >= _TELLING_BYTES and self.seconds > 0 else None

    @property
    def summary(self) -> str:
        """What is reported: meaning and last lines of a failure, statistics otherwise; a bounded number of lines."""
        lines = list(self.statistics)
        if self.outcome.severity is not rsync_exit.Severity.SUCCESS:
            lines = [self.outcome.meaning, *self.last_lines, *lines]
        return "\n".join(line[:_LINE_LIMIT] for line in lines)[:SUMMARY_LIMIT]


@dataclass(frozen=True)
class Extent:
    """How much of the source a run is about; by default all of it."""

    is_dry_run: bool = False
    """Nothing is transferred or changed; rsync says what would be."""
    listed: int | None = None
    """A file with the paths of the only entries that are transferred, NUL after each, directories without what is in
    them; what is not there any more is left out."""


WHOLE = Extent()


@dataclass(frozen=True)
class FileSystem:
    """What the storage's file system and our privileges can keep."""

    fake_super: bool = False
    """Ownership, devices and special modes go into extended attributes."""
    devices: bool = False
    """Device nodes are made: root, asked to."""
    nanoseconds: bool = False
    """Times are kept to the nanosecond, so that two within one second can be told apart."""
    opens_read_only_files: bool = True
    """Whether a file that forbids its owner writing can be written to: root can, and ours never do with fake_super."""


def file_system(workspace: Workspace, *, fake_super: bool | None, keep_devices: bool = False) -> FileSystem:
    """What can be kept in the workspace; ``fake_super`` is the configured choice, None where it is ours."""
    if fake_super is None:
        fake_super = os.geteuid() != 0 and _has_user_attributes(workspace.machine_dir)
    return FileSystem(
        fake_super=fake_super,
        devices=keep_devices,
        nanoseconds=_has_nanoseconds(workspace.machine_dir),
        opens_read_only_files=fake_super or os.geteuid() == 0,
    )


def _has_user_attributes(directory: Path) -> bool:
    probe = "user.turku.probe"
    try:
        os.setxattr(directory, probe, b"1")
        os.removexattr(directory, probe)
    except OSError:
        return False
    return True


def _has_nanoseconds(directory: Path) -> bool:
    moment = 1_000_000_000_123_456_789
    try:
        with tempfile.TemporaryFile(dir=directory) as probe:
            os.utime(probe.fileno(), ns=(moment, moment))
            return os.fstat(probe.fileno()).st_mtime_ns == moment
    except OSError:
        return False


def checked_user(username: str) -> str:
    """The one-time user name. Raises PolicyError for one that would turn the daemon's address into another one."""
    if not _USER.fullmatch(username):
        raise PolicyError("the machine's one-time user name has other characters than letters, digits and - _ .")
    return username


def arguments(
    rsync_command: Sequence[str],
    daemon: Daemon,
    selection: Selection,
    workspace: Workspace,
    system: FileSystem,
    *,
    extent: Extent = WHOLE,
    options: Sequence[str] = (),
) -> list[str]:
    """The argument list; the password is not in it. To be run in the directory that holds the workspace.

    ``options`` are those that depend on the release.

    Raises PolicyError for a user name that would turn the address into another one.
    """
    checked_user(daemon.username)
    return [
        *rsync_command,
        "--archive",
        "--numeric-ids",
        *_extent_options(extent),
        "--stats",
        f"--out-format={changes.OUT_FORMAT}",
        "--no-human-readable",
        "--no-motd",
        # Names are bytes: rsync passes them on as they are, and our log makes them printable.
        "--8-bit-output",
        f"--timeout={SILENCE_TIMEOUT_SECONDS}",
        f"--contimeout={CONNECT_TIMEOUT_SECONDS}",
        # By the method that both sides like best: zstd or lz4, zlib with an old one.
        *(["--compress"] if selection.compress else []),
        *(["--checksum"] if selection.compare_contents else []),
        *(["--hard-links"] if selection.hard_links else []),
        *(["--fake-super"] if system.fake_super else []),
        # A device node of a machine would lead to the storage's own device (threats M9).
        *([] if system.devices or system.fake_super else ["--no-devices"]),
        # Without it rsync takes a file of the same size and second for unchanged.
        *(["--modify-window=-1"] if system.nanoseconds else []),
        *([f"--bwlimit={selection.bandwidth_kib_per_second}"] if selection.bandwidth_kib_per_second else []),
        *([f"--stop-after={selection.stop_after_minutes}"] if selection.stop_after_minutes else []),
        *(["--partial"] if selection.keeps_partial_files else []),
        *_in_place(workspace, system),
        *(f"--filter={rule}" for rule in selection.rules),
        *workspace.options,
        *options,
        "--",
        f"rsync://{daemon.username}@127.0.0.1:{daemon.port}/{daemon.module}/",
        f"./{workspace.directory.relative_to(workspace.machine_dir)}/",
    ]


def _extent_options(extent: Extent) -> list[str]:
    if extent.listed is None:
        return ["--delete", "--delete-excluded", *(["--dry-run"] if extent.is_dry_run else [])]
    # A path by which rsync opens it anew in the sandbox too.
    return [f"--files-from=/proc/self/fd/{extent.listed}", "--from0", "--ignore-missing-args"]


def _in_place(workspace: Workspace, system: FileSystem) -> list[str]:
    if workspace.is_new:
        # There is nothing to replace: a name for the time of writing, and its renaming, are saved.
        return ["--inplace", "--whole-file"]
    if not (workspace.writes_in_place and system.opens_read_only_files):
        return []
    # What lies where it lay is not written again: an earlier snapshot goes on sharing those blocks.
    return [
        "--inplace",
        "--no-whole-file",
        *([f"--block-size={workspace.block_bytes}"] if workspace.block_bytes else []),
    ]


def run(
    configuration: Storage,
    daemon: Daemon,
    selection: Selection,
    workspace: Workspace,
    system: FileSystem,
    *,
    bounds: limits.Bounds,
    base: Path | None = None,
    extent: Extent = WHOLE,
    on_entry: Callable[[Line], None] = lambda _line: None,
) -> Transferred:
    """What came of it: rsync contained, and ended when it passes its bounds (threats M9).

    ``base`` is the tree of the snapshot that it is built upon. ``on_entry`` is told of each entry that rsync makes,
    changes or deletes, from another thread; a checksum is one of xxh128.

    Raises CommandFailed when rsync cannot be started, PolicyError as ``arguments`` does, BackupFailed when no daemon
    answers or a bound was passed, ConfigurationError when the sandbox is required and cannot be had.
    """
    numbers = itertools.count(1)

    def log(line: str) -> None:
        if not line:
            return
        number = next(numbers)
        if number <= _LOGGED_LINES:
            # One that is to stop at a moment says so as an error: what it means is the caller's to tell.
            _LOG.log(logging.INFO if selection.stop_after_minutes else logging.WARNING, "%s: %s", daemon.module, line)
        elif number == _LOGGED_LINES + 1:
            _LOG.warning("%s: rsync says more, which is not shown", daemon.module)

    statistics: deque[str] = deque(maxlen=command.KEPT_LINES)
    others: deque[str] = deque(maxlen=command.KEPT_LINES)
    suffixes = figures.Suffixes(base)

    reading = _Reading(on_entry)

    def read(stream: IO[bytes]) -> None:
        for raw in lines_of(stream, limit_bytes=changes.LINE_LIMIT_BYTES):
            if raw.startswith(changes.MARK):
                line = reading.entry(raw)
                if line is not None and line.is_new_file:
                    suffixes.note(line.path)
                continue
            text = one_line(raw.rstrip(b"\r\n"))
            if text.startswith(_STATISTICS):
                statistics.append(text)
            elif raw.startswith(_CHECKSUM_IS):
                reading.note_checksum(raw)
            elif text:
                others.append(text)
                _LOG.debug("%s: %s", daemon.module, text)

    machine_dir = workspace.machine_dir
    with (
        sandbox.receiver(
            # Relative to where it works: rsync's longest path is not shortened by where the volume lies.
            arguments(
                configuration.rsync_command,
                daemon,
                selection,
                workspace,
                system,
                extent=extent,
                options=_telling_checksum(configuration),
            ),
            configuration=configuration,
            machine_dir=machine_dir,
            port=daemon.port,
            fake_super=system.fake_super,
            protected=workspace.read_only,
        ) as receiver,
        receiver.start(
            directory=machine_dir,
            password=daemon.password,
            on_line=log,
            further_descriptors=() if extent.listed is None else (extent.listed,),
        ) as child,
    ):
        begun = time.monotonic()
        reader = threading.Thread(target=read, args=(child.stdout,), daemon=True)
        reader.start()
        watch = limits.Watch(
            bounds,
            process=child.pid,
            tree=workspace.directory,
            is_new_tree=not workspace.writes_in_place,
            machine_dir=machine_dir,
        )
        try:
            with limits.counting(machine_dir, watch), _written_back(workspace.directory, extent):
                exit_code = limits.wait(child, watch)
        except BaseException:
            sandbox.end(child)
            raise
        finally:
            if not extent.is_dry_run:
                limits.record(configuration, machine_dir, watch.taken_bytes())
        reader.join(_LAST_LINES_TIMEOUT_SECONDS)
        last_lines = (*others, *child.last_lines)[-command.KEPT_LINES :]
    return Transferred(
        rsync_exit.outcome(exit_code),
        tuple(statistics),
        tuple(last_lines),
        suffixes,
        seconds=time.monotonic() - begun,
        is_understood=reading.is_understood and not reader.is_alive(),
        taken_bytes=watch.taken_bytes(),
    )


@contextmanager
def _written_back(directory: Path, extent: Extent) -> Iterator[None]:
    """Have what a long run wrote go to the disk while it goes on, so that the commit need not wait for all of it."""
    is_over = threading.Event()

    def write_back() -> None:
        pause_seconds = _WRITE_BACK_SECONDS
        while not is_over.wait(pause_seconds):
            begun = time.monotonic()
            try:
                durable.sync_file_system(directory)
            except TurkuError:
                return
            # A busy disk is left to those who need it.
            pause_seconds = max(_WRITE_BACK_SECONDS, 2 * (time.monotonic() - begun))

    if extent.is_dry_run:
        yield
        return
    thread = threading.Thread(target=write_back, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()


class _Reading:
    """Reads the lines about entries."""

    def __init__(self, on_entry: Callable[[Line], None]) -> None:
        self._on_entry = on_entry
        self._is_checksum_known = False
        self._has_xxh128 = False
        self.is_understood = True

    def note_checksum(self, text: bytes) -> None:
        # The first one is rsync's own; the machine may say whatever it likes later.
        if not self._is_checksum_known:
            self._is_checksum_known = True
            self._has_xxh128 = text.rstrip() == _CHECKSUM_IS + b"xxh128"

    def entry(self, text: bytes) -> Line | None:
        line = changes.parse(text) if text.endswith(b"\n") else None
        if line is None:
            self.is_understood = False
            return None
        if line.checksum is not None and not self._has_xxh128:
            line = msgspec.structs.replace(line, checksum=None)
        self._on_entry(line)
        return line


def _telling_checksum(configuration: Storage) -> list[str]:
    """The option by which rsync says which checksum both sides agreed on, where it knows it."""
    try:
        version = rsync_version.installed(configuration.rsync_command)
    except CommandFailed:
        return []
    return ["--debug=nstr"] if version is not None and version >= _TELLS_CHECKSUM else []
