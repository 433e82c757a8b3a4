"""One rsync run against a machine's daemon, contained and within its limits."""

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from turku.core import command
from turku.core.cancellation import NEVER, Cancellation
from turku.core.log import one_line
from turku.core.program_output.bounded_log import bounded_log
from turku.core.program_output.line_reading import lines_of
from turku.errors import TurkuError
from turku.storage.config.model import StorageConfig
from turku.storage.containment import bubblewrap, capabilities, limits, sandbox
from turku.storage.containment.limits import RunLimits
from turku.storage.containment.watchdog import Watchdog, output_reader, wait_for
from turku.storage.fs import tree as fs
from turku.storage.rsync import change_log, messages, stats
from turku.storage.rsync.arguments import arguments
from turku.storage.rsync.change_log import ItemizedLine
from turku.storage.rsync.file_errors import FileErrors
from turku.storage.rsync.file_system_support import FileSystemSupport
from turku.storage.rsync.request import WHOLE_SOURCE, RsyncDaemon, TransferOptions, TransferScope, Workspace
from turku.storage.rsync.result import TransferResult, exit_status

_STATISTICS = ("Number of ", "Total ", "Literal data:", "Matched data:", "File list ", "sent ", "total size is ")


@dataclass
class OutputReader:
    """The reader of one run's standard output: lines about entries, statistics, and messages.

    The lines name the entries to look at, and nothing more. A machine's messages come in the same stream, so contents
    and checksums are taken from the tree itself.
    """

    module: str
    suffixes: stats.SuffixCounter
    on_entry: Callable[[ItemizedLine], None]
    """Is called for each line about an entry."""
    has_targets: bool
    directory: bytes
    """The directory in which rsync works."""
    is_abandoned: bool = False

    def __post_init__(self) -> None:
        self.statistics: deque[str] = deque(maxlen=command.KEPT_LINES)
        self.others: deque[str] = deque(maxlen=command.KEPT_LINES)
        self.all_lines_parsed = True
        self.skipped_devices = 0
        self.file_errors = FileErrors()
        self.marker = change_log.random_marker()

    def abandon(self) -> None:
        """Make ``read`` return without reading the rest."""
        self.is_abandoned = True

    def add_message(self, raw: bytes) -> None:
        """Parse a line that may be about a single entry, from either stream."""
        self.file_errors.parse_line(raw, directory=self.directory)

    def read(self, stream: IO[bytes]) -> None:
        """Read the stream to its end."""
        try:
            for raw in lines_of(stream, limit_bytes=change_log.LINE_LIMIT_BYTES):
                if self.is_abandoned:
                    return
                self._parse(raw)
        except Exception:
            # rsync would wait forever if nobody read its output.
            self.all_lines_parsed = False
            _LOG.exception("%s: parsing rsync's output failed, the rest of it is ignored", self.module)
            while stream.read(65536):
                pass

    def _parse(self, raw: bytes) -> None:
        if not raw.endswith(b"\n"):
            # rsync's next line may continue where a machine's message ends.
            self.all_lines_parsed = False
        if self.marker in raw:
            line = change_log.parse(raw, self.marker, has_targets=self.has_targets)
            if line is None:
                self.all_lines_parsed = False
                return
            self.on_entry(line)
            if line.is_new_file:
                self.suffixes.add(line.path)
            return
        text = one_line(raw.rstrip(b"\r\n"))
        if text.startswith(_STATISTICS):
            self.statistics.append(text)
        elif messages.is_not_regular(text):
            # FIFOs and sockets are kept, so this is a device.
            self.skipped_devices += 1
        elif text:
            self.add_message(raw)
            self.others.append(text)
            _LOG.debug("%s: %s", self.module, text)


_LAST_LINES_TIMEOUT_SECONDS = 5.0
_WRITE_BACK_SECONDS = 3.0
_LOG = logging.getLogger(__name__)


def run(
    configuration: StorageConfig,
    daemon: RsyncDaemon,
    options: TransferOptions,
    workspace: Workspace,
    support: FileSystemSupport,
    *,
    machine_dir: Path,
    run_limits: RunLimits,
    base: Path | None = None,
    scope: TransferScope = WHOLE_SOURCE,
    on_entry: Callable[[ItemizedLine], None] = lambda _line: None,
    spooled_bytes: Callable[[], int] = lambda: 0,
    cancellation: Cancellation = NEVER,
) -> TransferResult:
    """Run rsync and return its result. rsync is ended when it exceeds its limits (threats M9).

    ``base`` is the tree of the base snapshot. ``on_entry`` is called from another thread for each entry that rsync
    makes, changes or deletes. ``spooled_bytes`` returns the size of the change logs on the volume.

    Raises CommandFailed if rsync cannot be started, InvalidValue as ``arguments`` does, BackupFailed if no daemon
    answers or a limit is exceeded, ConfigurationError if the sandbox is required and not available, and whatever
    ``cancellation`` raises.
    """
    output = OutputReader(
        daemon.module,
        stats.SuffixCounter(base),
        on_entry,
        has_targets=scope.is_dry_run,
        directory=_directory_in_sandbox(configuration, workspace),
    )
    # An rsync that is to stop at a certain time reports that as an error. The caller knows its meaning.
    level = logging.INFO if options.stop_after_minutes else logging.WARNING
    with (
        bounded_log(_LOG, daemon.module, level=level, kind=messages.kind_of) as log,
        sandbox.contained_rsync(
            lambda path_in_sandbox: arguments(
                configuration.receiving.rsync_command,
                daemon,
                options,
                workspace,
                support,
                scope=scope,
                path_in_sandbox=path_in_sandbox,
                marker=output.marker,
            ),
            configuration=configuration,
            port=daemon.port,
            password=daemon.password,
            on_line=lambda line: log(line) if line else None,
            on_bytes=output.add_message,
            capabilities=capabilities.of_receiver(
                configuration.receiving,
                fake_super=support.fake_super,
                keeps_privileged_attributes=bool(support.privileged_attributes) and scope.compares_attributes,
            ),
            directory=workspace.directory,
            is_writable=not scope.is_dry_run,
            readable=workspace.basis if scope.files_from is None else (*workspace.basis, scope.files_from),
        ) as child,
    ):
        begin = time.monotonic()
        watchdog = Watchdog(
            run_limits,
            process=child.pid,
            tree=workspace.directory,
            is_new_tree=not workspace.writes_in_place,
            machine_dir=machine_dir,
            spooled_bytes=spooled_bytes,
        )
        try:
            with _writing_back(workspace.directory, scope):
                exit_code, is_read = _watched(child, output, watchdog, machine_dir, cancellation)
        finally:
            # A copy, because the reader may have been left behind with an rsync that does not end.
            written_bytes = watchdog.total_written_bytes(stats.literal_bytes(tuple(output.statistics)))
            if not scope.is_dry_run:
                limits.record_usage(configuration, machine_dir, written_bytes)
        last_lines = (*output.others, *child.last_lines)[-command.KEPT_LINES :]
    return TransferResult(
        exit_status(exit_code),
        tuple(output.statistics),
        tuple(last_lines),
        output.suffixes,
        seconds=time.monotonic() - begin,
        all_lines_parsed=output.all_lines_parsed and is_read,
        written_bytes=written_bytes,
        skipped_devices=output.skipped_devices,
        file_errors=output.file_errors,
    )


def _directory_in_sandbox(configuration: StorageConfig, workspace: Workspace) -> bytes:
    """Return the working directory as rsync sees it."""
    is_contained = bubblewrap.sandbox_availability(configuration.limits).is_used
    return os.fsencode(sandbox.WORKING_DIRECTORY if is_contained else workspace.directory)


def _watched(
    child: command.Child, output: OutputReader, watchdog: Watchdog, machine_dir: Path, cancellation: Cancellation
) -> tuple[int, bool]:
    """Wait for rsync within its limits. Return its exit code, and True if all of its output was read."""
    with (
        output_reader(
            child, output.read, abandon=output.abandon, timeout_seconds=_LAST_LINES_TIMEOUT_SECONDS
        ) as reader,
        limits.RUNS.counting(machine_dir, watchdog),
    ):
        exit_code = wait_for(child, watchdog, cancellation)
    return exit_code, not reader.is_alive()


@contextmanager
def _writing_back(directory: Path, scope: TransferScope) -> Iterator[None]:
    """Write a long run's data to the disk while it goes on, so that the commit need not wait for all of it."""
    is_over = threading.Event()

    def write_back() -> None:
        pause_seconds = _WRITE_BACK_SECONDS
        while not is_over.wait(pause_seconds):
            begin = time.monotonic()
            try:
                fs.sync(directory)
            except (TurkuError, OSError):
                return
            # Leave a busy disk to other work.
            pause_seconds = max(_WRITE_BACK_SECONDS, 2 * (time.monotonic() - begin))

    if scope.is_dry_run:
        yield
        return
    thread = threading.Thread(target=write_back, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
