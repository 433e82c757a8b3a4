"""rsync's run against a machine's daemon: the command line, and what came of it.

rsync makes no hard link into a snapshot, and writes into nothing that a snapshot shares. What it prints says where to
look, and nothing more: a machine's messages come in the same stream, so that contents and checksums are found by
looking at the tree itself.

ACLs, extended attributes, hard links and holes are kept, each where the source does not leave it out. Attributes that
only the kernel's administrator may set (``trusted.*``, ``security.*``) need more of a capability than owners do
(sandbox.py). A storage without root keeps all of them in attributes of rsync's own.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

from turku.core import command
from turku.core.bounded_log import bounded_log
from turku.core.cancellation import NEVER, Cancellation
from turku.core.filesystem import extended_attributes, posix_acl
from turku.core.line_reading import lines_of
from turku.core.log import one_line
from turku.core.secret import Secret
from turku.errors import InvalidValue, TurkuError
from turku.policy import bandwidth, compression
from turku.protocol.restore_messages import Settable
from turku.storage.config.configuration import StorageConfig
from turku.storage.containment import limits, sandbox
from turku.storage.disk.snapshot_notes import Notes
from turku.storage.fs import tree as fs
from turku.storage.rsync import change_log, exit_codes, messages, stats
from turku.storage.rsync.change_log import ItemizedLine
from turku.storage.rsync.file_errors import FileErrors
from turku.storage.rsync.workspace import Workspace

LISTED_AT_ONCE_FILES = 200_000
"""Up to so many files are listed at once: each takes about 100 bytes of memory on both sides."""
SILENCE_TIMEOUT_SECONDS = 1800
CONNECT_TIMEOUT_SECONDS = 60
SUMMARY_LIMIT = 60_000
"""Characters; the protocol takes 65,536 (turku.protocol.messages.SourceReport)."""
_LINE_LIMIT = 1000
_LAST_LINES_TIMEOUT_SECONDS = 5.0
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
    hard_links: bool = True
    acls: bool = True
    attributes: bool = True
    holes: bool = True
    bandwidth_kib_per_second: int | None = None
    bandwidth_limits: bandwidth.Limits = field(default_factory=bandwidth.Limits)
    """What limit holds when, where that depends on the time of day (pacing.py)."""
    stop_after_minutes: int | None = None
    """rsync ends by itself then, and leaves what it has for another one that goes on."""
    keeps_partial_files: bool = False
    """What there is of a file takes its place where rsync ends within it: of use to the next run."""
    compress: bool = False
    one_file_system: bool = False
    """The machine's rsync looks into no directory that another file system is mounted on."""
    unreadable: tuple[bytes, ...] = ()
    """Paths at which the machine's rsync can see nothing, so that nothing there is to be taken for deleted."""
    compare_contents: bool = False
    """Every file is read on both sides, for when size and time are not to be believed."""


@dataclass(frozen=True)
class TransferResult:
    """How rsync ended, its statistics, and the last lines that were none."""

    exit_status: exit_codes.ExitStatus
    statistics: tuple[str, ...]
    last_lines: tuple[str, ...]
    suffixes: stats.SuffixCounter = field(default_factory=lambda: stats.SuffixCounter(None))
    seconds: float = 0.0
    """How long it took."""
    is_understood: bool = False
    """True where each line about an entry could be read, so that what was handed on is all that rsync did."""
    is_continued: bool = False
    """Whether another rsync went on where one had stopped at the end of a bandwidth window."""
    taken_bytes: int = 0
    file_errors: FileErrors = field(default_factory=FileErrors)
    """What rsync said of single entries."""
    skipped_devices: int = 0

    def after(self, earlier: TransferResult) -> TransferResult:
        """Return this run with what an earlier one of the same backup transferred added to its statistics."""
        return replace(
            self,
            statistics=stats.summed(self.statistics, earlier.statistics),
            suffixes=self.suffixes.combined_with(earlier.suffixes),
            is_understood=self.is_understood and earlier.is_understood,
            is_continued=self.is_continued or earlier.is_continued,
            taken_bytes=self.taken_bytes + earlier.taken_bytes,
        )

    def with_amounts_of(self, later: TransferResult) -> TransferResult:
        """What a dry run said of the whole source, with the outcome and the amounts of data of the run after it."""
        amounts = [line for line in later.statistics if line.startswith(_AMOUNTS)]
        kept = [line for line in self.statistics if not line.startswith(_AMOUNTS)]
        return replace(
            later,
            statistics=(*kept, *amounts),
            suffixes=self.suffixes,
            # A run that is told what to transfer is not told of them.
            skipped_devices=self.skipped_devices,
        )

    @property
    def bytes_per_second(self) -> float | None:
        """What came over the way from the machine; None where too little came to tell."""
        found = [match for line in self.statistics if (match := _RECEIVED.match(line))]
        received = int(found[-1][1]) if found else 0
        return received / self.seconds if received >= _TELLING_BYTES and self.seconds > 0 else None

    @property
    def skipped_devices_warning(self) -> str:
        """Return a sentence about what is not kept by choice; empty where there is nothing of that kind."""
        if not self.skipped_devices:
            return ""
        what = "1 device file is" if self.skipped_devices == 1 else f"{self.skipped_devices} device files are"
        return f"{what} left out: this storage makes none (keep_devices, which takes root)"

    @property
    def summary(self) -> str:
        """What is reported: meaning and last lines of a failure, statistics otherwise; a bounded number of lines."""
        lines = list(self.statistics)
        if self.exit_status.severity is not exit_codes.Severity.SUCCESS:
            lines = [self.exit_status.meaning, *self.last_lines, *lines]
        if self.skipped_devices_warning:
            lines.append(self.skipped_devices_warning)
        return "\n".join(line[:_LINE_LIMIT] for line in lines)[:SUMMARY_LIMIT]


@dataclass(frozen=True)
class TransferScope:
    """How much of the source a run is about; by default all of it."""

    is_dry_run: bool = False
    """Nothing is transferred or changed; rsync says what would be."""
    listed: Path | None = None
    """A file with the paths of the only entries that are transferred, NUL after each, directories without what is in
    them; what is not on the machine any more is removed."""
    compares_attributes: bool = True
    """ACLs and extended attributes are read on both sides, which for files that did not change takes as long as all
    else."""
    lists_before_comparing: bool = False
    """The machine's rsync lists everything before the first entry is compared. Otherwise it waits for an answer every
    some thousand files, which over a line with delay takes most of the time; both sides then keep less in memory."""


WHOLE_SOURCE = TransferScope()


@dataclass(frozen=True)
class FileSystem:
    """What the storage's file system and our privileges can keep."""

    fake_super: bool = False
    """Ownership, devices and special modes go into extended attributes."""
    devices: bool = False
    """Device nodes are made: root, asked to."""
    acls: bool = False
    """POSIX ACLs can be kept, be it in attributes."""
    attributes: bool = False
    """Extended attributes can be kept: those of users at least."""
    privileged_attributes: tuple[str, ...] = ()
    """What rsync's filter has of the names that only root can set, which are kept here."""
    nanoseconds: bool = False
    """Times are kept to the nanosecond, so that two within one second can be told apart."""
    opens_read_only_files: bool = True
    """Whether a file that forbids its owner writing can be written to: root can, and ours never do with fake_super."""


def file_system(configuration: StorageConfig, machine_dir: Path) -> FileSystem:
    """Return what can be kept in the directory, under this configuration.

    Raises OSError where that cannot be tried.
    """
    is_root = os.geteuid() == 0
    has_attributes, has_acls, has_nanoseconds = _probe(machine_dir)
    fake_super = configuration.fake_super
    if fake_super is None:
        fake_super = not is_root and has_attributes
    privileged: tuple[str, ...] = ()
    if is_root and not fake_super and has_attributes:
        privileged = sandbox.privileged_attributes(configuration)
    return FileSystem(
        fake_super=fake_super,
        # Whoever is not root cannot make them, and each would end the run as one that lacks files.
        devices=configuration.keep_devices and is_root,
        acls=has_attributes if fake_super else has_acls,
        attributes=has_attributes,
        privileged_attributes=privileged,
        nanoseconds=has_nanoseconds,
        opens_read_only_files=fake_super or is_root,
    )


def _probe(directory: Path) -> tuple[bool, bool, bool]:
    """Return whether attributes of users, ACLs and nanoseconds can be kept; tried with a file that has no name.

    Raises OSError for what says nothing of that: a run that took a full disk for one without attributes would lose the
    owners of all files.
    """
    moment = 1_000_000_000_123_456_789
    has_attributes = has_acls = has_nanoseconds = False
    with _cannot():
        descriptor = fs.create_unnamed_file(directory)
        try:
            with _cannot():
                os.utime(descriptor, ns=(moment, moment))
                has_nanoseconds = os.fstat(descriptor).st_mtime_ns == moment
            with _cannot():
                os.setxattr(descriptor, "user.turku.probe", b"1")
                has_attributes = True
            with _cannot():
                os.setxattr(descriptor, posix_acl.ACCESS, posix_acl.SAMPLE)
                has_acls = True
        finally:
            os.close(descriptor)
    return has_attributes, has_acls, has_nanoseconds


@contextmanager
def _cannot() -> Iterator[None]:
    """Let a refusal of the file system end the block."""
    try:
        yield
    except OSError as error:
        if error.errno in (*fs.SAYS_NOTHING, errno.ENOSPC, errno.EDQUOT):
            raise


def is_listed_at_once(files: int | None) -> bool:
    """Return whether a run over so many files is to list all of them first (``Extent``); None is not known."""
    return files is not None and files <= LISTED_AT_ONCE_FILES


def is_compressed(choice: compression.Compression, earlier: Notes) -> bool:
    """Return whether this session compresses what is sent. ``earlier`` is noted of the base, or of what goes back."""
    return compression.is_worth_it(
        choice,
        ssh_connection=os.environ.get("SSH_CONNECTION", ""),
        bytes_per_second=earlier.bytes_per_second,
    )


def checked_user(username: str) -> str:
    """The one-time user name. Raises InvalidValue for one that would turn the daemon's address into another one."""
    if not _USER.fullmatch(username):
        raise InvalidValue("the machine's one-time user name has other characters than letters, digits and - _ .")
    return username


def arguments(
    rsync_command: Sequence[str],
    daemon: Daemon,
    selection: Selection,
    workspace: Workspace,
    system: FileSystem,
    *,
    extent: TransferScope = WHOLE_SOURCE,
    seen: Callable[[Path], str] = str,
    mark: bytes = change_log.MARK,
) -> list[str]:
    """Return the argument list; the password is not in it. To be run in the workspace's directory.

    ``seen`` says by which path rsync sees what lies beside it, ``mark`` with what its lines about entries begin.

    Raises InvalidValue for a user name that would turn the address into another one.
    """
    checked_user(daemon.username)
    return [
        *rsync_command,
        "--archive",
        "--numeric-ids",
        # Of a snapshot's own tree nothing else is ever asked.
        *(["--dry-run"] if extent.is_dry_run else []),
        *_extent_options(extent, workspace, seen),
        "--stats",
        f"--out-format={change_log.out_format(mark, has_targets=extent.is_dry_run)}",
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
        *(["--sparse"] if selection.holes else []),
        *(attribute_options(selection, system) if extent.compares_attributes else []),
        *(["--one-file-system"] if selection.one_file_system else []),
        *(["--fake-super"] if system.fake_super else []),
        # A device node of a machine would lead to the storage's own device (threats M9).
        *([] if system.devices or system.fake_super else ["--no-devices"]),
        # Without it rsync takes a file of the same size and second for unchanged.
        *(["--modify-window=-1"] if system.nanoseconds else []),
        *([f"--bwlimit={selection.bandwidth_kib_per_second}"] if selection.bandwidth_kib_per_second else []),
        *([f"--stop-after={selection.stop_after_minutes}"] if selection.stop_after_minutes else []),
        *(["--partial"] if selection.keeps_partial_files else []),
        *_in_place(workspace, system),
        *_protection(selection.unreadable),
        *(f"--filter={rule}" for rule in selection.rules),
        # Absolute: an rsync with the fix for CVE-2024-12086 refuses to open a basis file through '..', and a file that
        # changed in part then fails its verification (RsyncProject/rsync issue 928; seen with Debian's 3.2.7).
        *(f"--copy-dest={seen(basis)}" for basis in workspace.basis),
        "--",
        f"rsync://{daemon.username}@127.0.0.1:{daemon.port}/{daemon.module}/",
        # Relative to where it works: rsync's longest path is not shortened by where the volume lies.
        "./",
    ]


def _extent_options(extent: TransferScope, workspace: Workspace, seen: Callable[[Path], str]) -> list[str]:
    if extent.listed is None:
        return [
            *("--delete", "--delete-excluded"),
            *(["--no-inc-recursive"] if extent.lists_before_comparing else []),
        ]
    # What a failed run left may have what went meanwhile, or a directory where a file is to be. rsync 3.2.7 breaks off
    # when it is told of what is missing, so that this is not asked for without need.
    missing = "--delete-missing-args" if workspace.is_resumed else "--ignore-missing-args"
    return [f"--files-from={seen(extent.listed)}", "--from0", missing, "--force"]


def attribute_options(selection: Selection, system: FileSystem) -> list[str]:
    """Return the options by which rsync keeps what the selection wants, and the file system can hold."""
    options = ["--acls"] if selection.acls and system.acls else []
    if selection.attributes and system.attributes:
        options += ["--xattrs", *_attribute_filter(system)]
    return options


def preserved(selection: Selection, system: FileSystem) -> tuple[Settable, ...]:
    """Return what of files is kept beside owner, mode and times, as a restore is told of it."""
    found: list[Settable] = ["acls"] if selection.acls and system.acls else []
    if selection.attributes and system.attributes:
        found.append("attributes")
        if system.fake_super or {"trusted.*", "security.*"} <= set(system.privileged_attributes):
            found.append("privileged")
    return tuple(found)


def _attribute_filter(system: FileSystem) -> list[str]:
    """Return the rules about names of attributes. Each says of both sides: rsync's ``--delete-excluded`` would make it
    the sender's alone, and the receiver would then remove ACLs as attributes that the sender does not have.
    """
    if system.fake_super:
        # Without a rule of ours rsync removes what it has kept of a new directory's ACL a moment before.
        raw = [extended_attributes.LABEL] if sandbox.has_selinux_labels() else []
        return [f"--filter=-xsr {name}" for name in ("system.*", "user.rsync.%*", *raw)]
    if os.geteuid() != 0:
        return ["--filter=-xsr! user.*"]
    kept = ("user.*", *system.privileged_attributes)
    return [
        # What a machine that keeps owners in attributes has there is content like any other.
        "--xattrs",
        # XFS shows an ACL to root as an attribute, too. A file system's own names, as ``btrfs.compression``, cannot be
        # set on another one.
        "--filter=-xsr trusted.SGI_ACL_*",
        *(f"--filter=+xsr {name}" for name in kept),
        "--filter=-xsr *",
    ]


def _protection(unreadable: Sequence[bytes]) -> list[str]:
    """Return what has rsync delete what is gone although it could not read everything, but for what is at these paths.

    By itself rsync deletes nothing once there was a single error.
    """
    if not unreadable:
        return []
    rules = []
    for path in unreadable:
        # A backslash stands for itself in a pattern without any of the other three.
        escaped = re.sub(rb"([\\*?\[])", rb"\\\1", path)
        exact = escaped if re.search(rb"[*?\[]", path) else path
        rules += [f"--filter=P /{os.fsdecode(exact)}", f"--filter=P /{os.fsdecode(escaped)}/***"]
    return ["--ignore-errors", *rules]


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
    configuration: StorageConfig,
    daemon: Daemon,
    selection: Selection,
    workspace: Workspace,
    system: FileSystem,
    *,
    machine_dir: Path,
    bounds: limits.RunLimits,
    base: Path | None = None,
    extent: TransferScope = WHOLE_SOURCE,
    on_entry: Callable[[ItemizedLine], None] = lambda _line: None,
    spooled_bytes: Callable[[], int] = lambda: 0,
    cancellation: Cancellation = NEVER,
) -> TransferResult:
    """Return what came of it: rsync contained, and ended when it passes its bounds (threats M9).

    ``base`` is the tree of the snapshot that it is built upon. ``on_entry`` is told of each entry that rsync makes,
    changes or deletes, from another thread. ``spooled_bytes`` is what is kept of that on the volume.

    Raises CommandFailed when rsync cannot be started, InvalidValue as ``arguments`` does, BackupFailed when no daemon
    answers or a bound was passed, ConfigurationError when the sandbox is required and cannot be had, and what
    ``cancellation`` raises.
    """
    directory = os.fsencode(
        sandbox.WORKING_DIRECTORY if sandbox.availability(configuration).is_used else workspace.directory
    )
    output = _OutputReader(
        daemon.module, stats.SuffixCounter(base), on_entry, has_targets=extent.is_dry_run, directory=directory
    )
    beside = workspace.basis if extent.listed is None else (*workspace.basis, extent.listed)
    # One that is to stop at a moment says so as an error: what it means is the caller's to tell.
    level = logging.INFO if selection.stop_after_minutes else logging.WARNING
    with (
        bounded_log(_LOG, daemon.module, level=level, kind=messages.kind_of) as log,
        sandbox.receiver(
            lambda seen: arguments(
                configuration.rsync_command,
                daemon,
                selection,
                workspace,
                system,
                extent=extent,
                seen=seen,
                mark=output.mark,
            ),
            configuration=configuration,
            port=daemon.port,
            fake_super=system.fake_super,
            keeps_privileged_attributes=bool(system.privileged_attributes) and extent.compares_attributes,
            directory=workspace.directory,
            is_writable=not extent.is_dry_run,
            readable=beside,
        ) as receiver,
        receiver.start(
            password=daemon.password,
            on_line=lambda line: log(line) if line else None,
            on_bytes=output.take_message,
        ) as child,
    ):
        begun = time.monotonic()
        watch = limits.Watchdog(
            bounds,
            process=child.pid,
            tree=workspace.directory,
            is_new_tree=not workspace.writes_in_place,
            machine_dir=machine_dir,
            spooled_bytes=spooled_bytes,
        )
        try:
            with (
                sandbox.output_reader(
                    child, output.read, abandon=output.end, timeout_seconds=_LAST_LINES_TIMEOUT_SECONDS
                ) as reader,
                limits.counting(machine_dir, watch),
                _written_back(workspace.directory, extent),
            ):
                exit_code = limits.wait(child, watch, cancellation)
        finally:
            if not extent.is_dry_run:
                limits.record(configuration, machine_dir, watch.taken_bytes())
        last_lines = (*output.others, *child.last_lines)[-command.KEPT_LINES :]
    return TransferResult(
        exit_codes.exit_status(exit_code),
        tuple(output.statistics),
        tuple(last_lines),
        output.suffixes,
        seconds=time.monotonic() - begun,
        is_understood=output.is_understood and not reader.is_alive(),
        taken_bytes=watch.taken_bytes(),
        skipped_devices=output.devices_left_out,
        file_errors=output.mishaps,
    )


class _OutputReader:
    """Reads what rsync prints: lines about entries, statistics, and all others."""

    def __init__(
        self,
        module: str,
        suffixes: stats.SuffixCounter,
        on_entry: Callable[[ItemizedLine], None],
        *,
        has_targets: bool,
        directory: bytes,
    ) -> None:
        self.suffixes = suffixes
        self.statistics: deque[str] = deque(maxlen=command.KEPT_LINES)
        self.others: deque[str] = deque(maxlen=command.KEPT_LINES)
        self.is_understood = True
        self.devices_left_out = 0
        self.mishaps = FileErrors()
        self._directory = directory
        self.mark = change_log.new_mark()
        self._module = module
        self._on_entry = on_entry
        self._has_targets = has_targets
        self._is_over = False

    def end(self) -> None:
        """Let ``read`` come to its end, whatever is still to be read: nobody wants to know."""
        self._is_over = True

    def take_message(self, raw: bytes) -> None:
        """Take note of a line that may be about a single entry; for the reader of either stream."""
        self.mishaps.parse_line(raw, directory=self._directory)

    def read(self, stream: IO[bytes]) -> None:
        try:
            for raw in lines_of(stream, limit_bytes=change_log.LINE_LIMIT_BYTES):
                if self._is_over:
                    return
                self._take(raw)
        except Exception:
            # rsync waits for ever once its output is not read any more.
            self.is_understood = False
            _LOG.exception("%s: what rsync says is not listened to any further", self._module)
            while stream.read(65536):
                pass

    def _take(self, raw: bytes) -> None:
        if not raw.endswith(b"\n"):
            # rsync's next line may go on where a machine's message ends.
            self.is_understood = False
        if self.mark in raw:
            line = change_log.parse(raw, self.mark, has_targets=self._has_targets)
            if line is None:
                self.is_understood = False
                return
            self._on_entry(line)
            if line.is_new_file:
                self.suffixes.note(line.path)
            return
        text = one_line(raw.rstrip(b"\r\n"))
        if text.startswith(_STATISTICS):
            self.statistics.append(text)
        elif messages.is_not_regular(text):
            # FIFOs and sockets are kept, so that it is a device.
            self.devices_left_out += 1
        elif text:
            self.take_message(raw)
            self.others.append(text)
            _LOG.debug("%s: %s", self._module, text)


@contextmanager
def _written_back(directory: Path, extent: TransferScope) -> Iterator[None]:
    """Have what a long run wrote go to the disk while it goes on, so that the commit need not wait for all of it."""
    is_over = threading.Event()

    def write_back() -> None:
        pause_seconds = _WRITE_BACK_SECONDS
        while not is_over.wait(pause_seconds):
            begun = time.monotonic()
            try:
                fs.sync(directory)
            except (TurkuError, OSError):
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
