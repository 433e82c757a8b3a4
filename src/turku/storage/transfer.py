"""rsync's run against a machine's daemon: the command line, and what came of it.

Left out on purpose: compression (the tunnel's business), ``--sparse`` and, where snapshots share files, ``--inplace``
(they would write into shared files), ACLs and extended attributes (an rsync built without them refuses, and a machine's
would have effects here).
"""

from __future__ import annotations

import itertools
import logging
import os
import re
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from turku.core import command
from turku.core.log import one_line
from turku.core.secret import Secret
from turku.errors import PolicyError
from turku.storage import figures, limits, rsync_exit, sandbox
from turku.storage.configuration import Storage
from turku.storage.snapshots import Workspace

SILENCE_TIMEOUT_SECONDS = 1800
CONNECT_TIMEOUT_SECONDS = 60
SUMMARY_LIMIT = 60_000
"""Characters; the protocol takes 65,536 (turku.protocol.messages.SourceReport)."""
_LINE_LIMIT = 1000
_LOGGED_LINES = 100
_LAST_LINES_TIMEOUT_SECONDS = 5.0
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
    compare_contents: bool = False
    """Every file is read on both sides, for when size and time are not to be believed."""


@dataclass(frozen=True)
class Transferred:
    """How rsync ended, its statistics, and the last lines that were none."""

    outcome: rsync_exit.Outcome
    statistics: tuple[str, ...]
    last_lines: tuple[str, ...]
    suffixes: figures.Suffixes = field(default_factory=lambda: figures.Suffixes(None))

    @property
    def summary(self) -> str:
        """What is reported: meaning and last lines of a failure, statistics otherwise; a bounded number of lines."""
        lines = list(self.statistics)
        if self.outcome.severity is not rsync_exit.Severity.SUCCESS:
            lines = [self.outcome.meaning, *self.last_lines, *lines]
        return "\n".join(line[:_LINE_LIMIT] for line in lines)[:SUMMARY_LIMIT]


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
    directory = workspace.directory
    if fake_super is None:
        fake_super = os.geteuid() != 0 and _has_user_attributes(directory.parent)
    return FileSystem(
        fake_super=fake_super,
        devices=keep_devices,
        nanoseconds=_has_nanoseconds(directory),
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
    # The directory's time is the source's once rsync is through.
    moment = 1_000_000_000_123_456_789
    try:
        os.utime(directory, ns=(moment, moment))
        return directory.stat().st_mtime_ns == moment
    except OSError:
        return False


def arguments(
    rsync_command: Sequence[str], daemon: Daemon, selection: Selection, workspace: Workspace, system: FileSystem
) -> list[str]:
    """The argument list; the password is not in it. To be run in the directory that holds the workspace.

    Raises PolicyError for a user name that would turn the address into another one.
    """
    if not _USER.fullmatch(daemon.username):
        raise PolicyError("the machine's one-time user name has other characters than letters, digits and - _ .")
    return [
        *rsync_command,
        "--archive",
        "--numeric-ids",
        "--delete",
        "--delete-excluded",
        "--stats",
        f"--out-format={figures.OUT_FORMAT}",
        "--no-human-readable",
        "--no-motd",
        # Names are bytes: rsync passes them on as they are, and our log makes them printable.
        "--8-bit-output",
        f"--timeout={SILENCE_TIMEOUT_SECONDS}",
        f"--contimeout={CONNECT_TIMEOUT_SECONDS}",
        *(["--checksum"] if selection.compare_contents else []),
        *(["--hard-links"] if selection.hard_links else []),
        *(["--fake-super"] if system.fake_super else []),
        # A device node of a machine would lead to the storage's own device (threats M9).
        *([] if system.devices or system.fake_super else ["--no-devices"]),
        # Without it rsync takes a file of the same size and second for unchanged.
        *(["--modify-window=-1"] if system.nanoseconds else []),
        *([f"--bwlimit={selection.bandwidth_kib_per_second}"] if selection.bandwidth_kib_per_second else []),
        *_in_place(workspace, system),
        *(f"--filter={rule}" for rule in selection.rules),
        *workspace.options,
        "--",
        f"rsync://{daemon.username}@127.0.0.1:{daemon.port}/{daemon.module}/",
        f"./{workspace.directory.name}/",
    ]


def _in_place(workspace: Workspace, system: FileSystem) -> list[str]:
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
) -> Transferred:
    """What came of it: rsync contained, and ended when it passes its bounds (threats M9).

    ``base`` is the tree of the snapshot that it is built upon.

    Raises CommandFailed when rsync cannot be started, PolicyError as ``arguments`` does, BackupFailed when no daemon
    answers or a bound was passed, ConfigurationError when the sandbox is required and cannot be had.
    """
    numbers = itertools.count(1)

    def log(line: str) -> None:
        if not line:
            return
        number = next(numbers)
        if number <= _LOGGED_LINES:
            _LOG.warning("%s: %s", daemon.module, line)
        elif number == _LOGGED_LINES + 1:
            _LOG.warning("%s: rsync says more, which is not shown", daemon.module)

    statistics: deque[str] = deque(maxlen=command.KEPT_LINES)
    others: deque[str] = deque(maxlen=command.KEPT_LINES)
    suffixes = figures.Suffixes(base)

    def read(stream: IO[bytes]) -> None:
        while raw := stream.readline(command.LINE_LIMIT_BYTES):
            if raw.startswith(figures.ANY_FILE):
                if raw.startswith(figures.CREATED_FILE):
                    suffixes.note(raw[len(figures.CREATED_FILE) :].rstrip(b"\r\n"))
                continue
            line = one_line(raw.rstrip(b"\r\n"))
            if line.startswith(_STATISTICS):
                statistics.append(line)
            elif line:
                others.append(line)
                _LOG.debug("%s: %s", daemon.module, line)

    machine_dir = workspace.directory.parent
    with (
        sandbox.receiver(
            # Relative to where it works: rsync's longest path is not shortened by where the volume lies.
            arguments(configuration.rsync_command, daemon, selection, workspace, system),
            configuration=configuration,
            machine_dir=machine_dir,
            port=daemon.port,
            fake_super=system.fake_super,
            protected=workspace.read_only,
        ) as receiver,
        command.start(
            receiver.argv,
            on_line=log,
            stdin=receiver.stdin,
            stdout=True,
            working_directory=machine_dir,
            pass_descriptors=receiver.descriptors,
            extra_environment={**receiver.environment, "RSYNC_PASSWORD": daemon.password.reveal()},
        ) as child,
    ):
        reader = threading.Thread(target=read, args=(child.stdout,), daemon=True)
        reader.start()
        watch = limits.Watch(
            bounds, process=child.pid, tree=workspace.directory, is_new_tree=not workspace.writes_in_place
        )
        try:
            exit_code = limits.wait(child, watch)
        except BaseException:
            sandbox.end(child)
            raise
        finally:
            limits.record(configuration, machine_dir, watch.taken_bytes())
        reader.join(_LAST_LINES_TIMEOUT_SECONDS)
        last_lines = (*others, *child.last_lines)[-command.KEPT_LINES :]
    return Transferred(rsync_exit.outcome(exit_code), tuple(statistics), tuple(last_lines), suffixes)
