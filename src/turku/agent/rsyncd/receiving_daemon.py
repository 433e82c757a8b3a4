"""The rsync daemon of a restore: one module that can be written, by one connection, and not read.

rsync reads its configuration at each connection, so the module can be added when the storage has said what it would
write. The module is a private directory (``staging_directory.py``): which options a client chooses does not matter, as
nothing of the user's is in it. The daemon tells of every file it has received whole, with its checksum.
"""

from __future__ import annotations

import logging
import os
import re
import resource
import secrets
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from turku.agent import runtime_directory
from turku.agent.config.configuration import AgentConfig
from turku.agent.rsyncd import nodev_mount, serving_daemon
from turku.agent.rsyncd.serving_daemon import DaemonLog, Module, PortTaken
from turku.core import command
from turku.core.filesystem import extended_attributes
from turku.core.line_reading import emptied, lines_of
from turku.errors import CommandFailed, RestoreFailed

_LOG_LINE_LIMIT_BYTES = 32 * 1024
_END_TIMEOUT_SECONDS = 10.0
_ESCAPE = re.compile(rb"\\#[0-9]{3}")
"""rsync 3.5 has a line break in a name as ``\\#012`` in the log, and older releases have it as it is.

So a name with this in it may be one or the other.
"""
_LEFT_ALONE = "-x_system.*"
_LABELS_LEFT_ALONE = f"-x_{extended_attributes.LABEL}"
"""What rsync neither sets nor removes: ACLs have their own option, and SELinux lets nobody remove a label."""
_USED_VARIABLE = "TURKU_USED"
_LOG = logging.getLogger(__name__)

Received = Callable[[bytes, bytes, int], None]
"""Told of a file: its path in the module, the checksum (of whatever algorithm rsync used), its size.

The checksum is empty where the log does not tell for certain which file it is about.
"""


class ReceivingDaemon:
    """A running daemon without a module, until ``offer``."""

    def __init__(self, agent: AgentConfig, directory: Path, port: int, on_received: Received) -> None:
        self.port = port
        self._agent = agent
        self._directory = directory
        self._on_received = on_received
        # Names cannot forge a line of the log: nobody who named a file knew this.
        self._token = secrets.token_hex(16).encode()
        self._listener = DaemonLog()
        self._reader: threading.Thread | None = None
        self._daemon: command.Child | None = None
        self._configuration = runtime_directory.write_private(directory / "rsyncd.conf", self._text(None))

    def offer(self, module: Module, *, may_delete: bool, has_labels: bool, file_limit_bytes: int | None) -> None:
        """Let the module be written, by the next connection that knows its password and by no other one.

        ``has_labels`` says that what comes has labels of SELinux. ``file_limit_bytes`` bounds each file.
        """
        if file_limit_bytes is not None and self._daemon is not None:
            # The process of a connection inherits it; a file that grows beyond it ends that process.
            resource.prlimit(self._daemon.pid, resource.RLIMIT_FSIZE, (file_limit_bytes, file_limit_bytes))
        runtime_directory.write_private(self._directory / "secrets", f"{module.username}:{module.password.reveal()}\n")
        text = self._text(module, may_delete=may_delete, has_labels=has_labels)
        fresh = runtime_directory.write_private(self._directory / "rsyncd.conf.new", text)
        fresh.replace(self._configuration)

    @contextmanager
    def running(self) -> Iterator[None]:
        """The daemon answers for the length of the block; after it everything that it said was told, and nothing writes
        into the module any more. Raises RestoreFailed where that cannot be had."""
        address = self._agent.rsyncd_local_address
        serving_daemon.require_free(address, self.port)
        argv = [*self._agent.rsyncd_command, "--daemon", "--no-detach", f"--config={self._configuration}"]
        with command.start(
            argv,
            on_line=self._listener.line,
            stdout=True,
            extra_environment={serving_daemon.PERCENT_VARIABLE: "%", _USED_VARIABLE: str(self._directory / "used")},
            end_signal=signal.SIGUSR1,
        ) as daemon:
            self._daemon = daemon
            # With its own descriptor, as the child's is closed when that ends, and the last lines may be unread.
            output = os.fdopen(os.dup(daemon.stdout.fileno()), "rb")
            self._reader = threading.Thread(target=self._read_to_end, args=(output,), daemon=True)
            self._reader.start()
            serving_daemon.wait_until_ready(daemon, address, self.port)
            try:
                yield
            finally:
                self._listener.end()
        # It ends when the last process has closed its output: that of a connection too.
        self._reader.join(_END_TIMEOUT_SECONDS)
        if self._reader.is_alive():
            raise RestoreFailed("rsyncd does not end, and could still write", hint="kill it, and restore again")

    def _read_to_end(self, stream: IO[bytes]) -> None:
        with stream:
            self._read(stream)

    def _read(self, stream: IO[bytes]) -> None:
        # A daemon whose log nobody reads waits for ever to write its next line, and the restore with it.
        with emptied(stream):
            try:
                self._read_lines(stream)
            except Exception:
                _LOG.exception("rsyncd's log is not understood any further: the files are read instead")

    def _read_lines(self, stream: IO[bytes]) -> None:
        mark = b"] " + self._token + b" "
        for line in lines_of(stream, limit_bytes=_LOG_LINE_LIMIT_BYTES):
            # A line that rsync cut off, as its path is long, has the next one behind it.
            _stamp, *records = line.split(mark)
            if not records:
                self._listener.line(line.rstrip(b"\n").decode("utf-8", "backslashreplace"))
            for record in records:
                try:
                    self._report_file(record.rstrip(b"\n"))
                except ValueError as error:
                    # The file is read instead.
                    _LOG.debug("a line of rsyncd's log is not understood: %s", error)

    def _report_file(self, record: bytes) -> None:
        """Tell of a file that was received, by what the log has of it. Raises ValueError where that is no record."""
        checksum, size, rest = record.split(b" ", 2)
        # Without its end it may be the path of another file, which this one's begins with.
        path, end, behind = rest.partition(b" " + self._token)
        is_certain = end and not behind and not _ESCAPE.search(path)
        self._on_received(path, bytes.fromhex(checksum.decode("ascii")) if is_certain else b"", int(size))

    def _text(self, module: Module | None, *, may_delete: bool = False, has_labels: bool = False) -> str:
        is_root = os.geteuid() == 0
        # What has none keeps the label that this host gave it. Where SELinux is not at work a label is like any other.
        leaves_labels = extended_attributes.are_labelled_here() and not has_labels
        left_alone = f"{_LEFT_ALONE} {_LABELS_LEFT_ALONE}" if leaves_labels else _LEFT_ALONE
        lines = [
            f"address = {self._agent.rsyncd_local_address}",
            f"port = {self.port}",
            "log file = /dev/stdout",
            "transfer logging = yes",
            f"log format = {self._token.decode()} %C %l %n {self._token.decode()}",
            "reverse lookup = no",
            "forward lookup = no",
            f"hosts allow = 127.0.0.0/8 ::1 {self._agent.rsyncd_local_address}",
            "list = no",
            "max connections = 4",
            f"lock file = {self._directory / 'connections.lock'}",
            "munge symlinks = no",
            "numeric ids = yes",
            "strict modes = yes",
            # Who ran the restore, root among them; another user could not give files their owners back.
            # By number: what is to come back may be the tables of names.
            *(["uid = 0", "gid = 0", f"filter = {left_alone}"] if is_root else []),
            f"use chroot = {'yes' if serving_daemon.can_change_root() else 'no'}",
        ]
        if module is not None:
            lines += [
                f"[{module.name}]",
                f"path = {serving_daemon.quoted_path(module.path)}",
                "read only = no",
                "write only = yes",
                f"auth users = {module.username}",
                f"secrets file = {self._directory / 'secrets'}",
                # The first connection makes the directory; for every other one that fails, which refuses it.
                f'pre-xfer exec = mkdir "${_USED_VARIABLE}"',
                *([] if may_delete else ["refuse options = delete* remove-*"]),
            ]
        return "\n".join(lines) + "\n"


@contextmanager
def serve(agent: AgentConfig, directory: Path, on_received: Received) -> Iterator[ReceivingDaemon]:
    """A daemon that answers for the length of the block. ``directory`` is private and empty.

    Raises CommandFailed when it does not come up.
    """
    nodev_mount.drop_device_capability()
    for attempt in range(1, serving_daemon.PORT_ATTEMPTS + 1):
        own = directory / f"daemon-{attempt}"
        own.mkdir(mode=0o700)
        daemon = ReceivingDaemon(agent, own, serving_daemon.draw_port(), on_received)
        try:
            with daemon.running():
                yield daemon
                return
        except PortTaken as error:
            _LOG.info("%s; trying another port", error.message)
    raise CommandFailed(
        f"no free port on {agent.rsyncd_local_address} for rsyncd in {serving_daemon.PORT_ATTEMPTS} attempts"
    )
