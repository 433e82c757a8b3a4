"""The rsync daemon of a restore: one module that one connection may write and nobody may read.

rsync reads its configuration at each connection, so the module is added after the storage has announced its files. The
module is a staging directory (``staging_directory.py``) that holds nothing of the user's, so it does not matter which
options a client chooses. The daemon reports every file that it has received completely, with its checksum.
"""

import logging
import os
import re
import resource
import secrets
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Self

from turku.agent.config.model import AgentConfig
from turku.agent.rsyncd import config_text, daemon, nodev_mount
from turku.agent.rsyncd.config_text import Module, ModuleSection
from turku.agent.rsyncd.daemon import DaemonLog
from turku.agent.state import var_dir
from turku.core import command
from turku.core.filesystem import extended_attributes
from turku.core.program_output.line_reading import drained, lines_of
from turku.errors import RestoreFailed

_CONNECTIONS = 4
_LOG_LINE_LIMIT_BYTES = 32 * 1024
_END_TIMEOUT_SECONDS = 10.0
_ESCAPE = re.compile(rb"\\#[0-9]{3}")
"""rsync 3.5 logs a line break in a name as ``\\#012``. Older releases log it as it is.

A name that contains such a sequence may therefore be either of the two.
"""
_EXCLUDED_ATTRIBUTES = "-x_system.*"
_EXCLUDED_LABELS = f"-x_{extended_attributes.LABEL}"
"""Attributes that rsync neither sets nor removes: ACLs have their own option, and SELinux forbids removing a label."""
_USED_VARIABLE = "TURKU_USED"
_LOG = logging.getLogger(__name__)

Received = Callable[[bytes, bytes, int], None]
"""A callback for a received file: its path in the module, its checksum by rsync's algorithm, and its size in bytes.

The checksum is empty where the log does not say for certain which file it belongs to.
"""


class ReceivingDaemon:
    """A running daemon. It has no module until ``offer`` is called."""

    def __init__(self, agent: AgentConfig, directory: Path, port: int, on_received: Received) -> None:
        self.port = port
        self._agent = agent
        self._directory = directory
        self._on_received = on_received
        # File names cannot forge a line of the log, because nobody who named a file knew this token.
        self._token = secrets.token_hex(16).encode()
        self._log = DaemonLog()
        self._reader: threading.Thread | None = None
        self._daemon: command.Child | None = None
        self._configuration = var_dir.write_private(directory / "rsyncd.conf", self._text(None))

    def offer(self, module: Module, *, may_delete: bool, has_labels: bool, file_limit_bytes: int | None) -> None:
        """Let the next connection that knows the module's password write to it, and no other one.

        ``has_labels`` says that the restored files have SELinux labels. ``file_limit_bytes`` limits each file.
        """
        if file_limit_bytes is not None and self._daemon is not None:
            # Each connection's process inherits the limit. A file that grows beyond it ends that process.
            resource.prlimit(self._daemon.pid, resource.RLIMIT_FSIZE, (file_limit_bytes, file_limit_bytes))
        var_dir.write_private(self._directory / "secrets", module.secrets_text)
        text = self._text(module, may_delete=may_delete, has_labels=has_labels)
        fresh = var_dir.write_private(self._directory / "rsyncd.conf.new", text)
        fresh.replace(self._configuration)

    @contextmanager
    def running(self) -> Iterator[Self]:
        """Run the daemon for the length of the block, and give it.

        After the block every received file was reported and nothing writes to the module any more. Raises RestoreFailed
        where a process still could.
        """
        environment = {config_text.PERCENT_VARIABLE: "%", _USED_VARIABLE: str(self._directory / "used")}
        with daemon.start(
            self._agent.rsyncd, self._configuration, self.port, self._log, environment=environment, stdout=True
        ) as child:
            self._daemon = child
            # A descriptor of its own, as the child's is closed at its end, and the last lines may be unread by then.
            output = os.fdopen(os.dup(child.stdout.fileno()), "rb")
            self._reader = threading.Thread(target=self._read, args=(output,), daemon=True)
            self._reader.start()
            daemon.wait_until_ready(child, self._agent.rsyncd.rsyncd_local_address, self.port)
            try:
                yield self
            finally:
                self._log.end()
        # The reader ends when the last process has closed its output, the process of a connection included.
        self._reader.join(_END_TIMEOUT_SECONDS)
        if self._reader.is_alive():
            raise RestoreFailed("rsyncd does not end, and could still write", hint="kill it, and restore again")

    def _read(self, stream: IO[bytes]) -> None:
        # If nobody reads its log, the daemon blocks while it writes the next line, and so does the restore.
        with stream, drained(stream):
            try:
                self._read_lines(stream)
            except Exception:
                _LOG.exception("cannot read the log of rsyncd any further. The restored files are read instead.")

    def _read_lines(self, stream: IO[bytes]) -> None:
        mark = b"] " + self._token + b" "
        for line in lines_of(stream, limit_bytes=_LOG_LINE_LIMIT_BYTES):
            # rsync cuts off a line with a long path, and the next line then follows on the same one.
            _stamp, *records = line.split(mark)
            if not records:
                self._log.line(line.rstrip(b"\n").decode("utf-8", "backslashreplace"))
            for record in records:
                try:
                    self._report_file(record.rstrip(b"\n"))
                except ValueError as error:
                    # The file is read instead.
                    _LOG.debug("cannot parse a line of rsyncd's log: %s", error)

    def _report_file(self, record: bytes) -> None:
        """Report a received file by its record of the log. Raises ValueError where the record cannot be parsed."""
        checksum, size, rest = record.split(b" ", 2)
        # Without the closing token the path may be the beginning of another file's path.
        path, end, behind = rest.partition(b" " + self._token)
        is_certain = end and not behind and not _ESCAPE.search(path)
        self._on_received(path, bytes.fromhex(checksum.decode("ascii")) if is_certain else b"", int(size))

    def _text(self, module: Module | None, *, may_delete: bool = False, has_labels: bool = False) -> str:
        sections = []
        if module is not None:
            settings = {
                "write only": "yes",
                # The first connection creates the directory. The command fails for every other one, which refuses it.
                "pre-xfer exec": f'mkdir "${_USED_VARIABLE}"',
                **({} if may_delete else {"refuse options": "delete* remove-*"}),
            }
            sections.append(ModuleSection(module, self._directory / "secrets", settings))
        token = self._token.decode()
        is_root = os.geteuid() == 0
        return config_text.render(
            sections,
            address=self._agent.rsyncd.rsyncd_local_address,
            port=self.port,
            lock_file=self._directory / "connections.lock",
            connections=_CONNECTIONS,
            # The user who runs the restore, root included, as another user could not give files their owners back. By
            # number, because the tables of user names may be among the restored files.
            user_and_group=("0", "0") if is_root else None,
            change_root=daemon.can_change_root(),
            settings={
                "log file": "/dev/stdout",
                "transfer logging": "yes",
                "log format": f"{token} %C %l %n {token}",
                **({"filter": _attribute_filter(has_labels=has_labels)} if is_root else {}),
            },
        )


def _attribute_filter(*, has_labels: bool) -> str:
    # Files that come without labels keep those of this host. Without SELinux a label is like any other attribute.
    excludes_labels = extended_attributes.are_labelled_here() and not has_labels
    return f"{_EXCLUDED_ATTRIBUTES} {_EXCLUDED_LABELS}" if excludes_labels else _EXCLUDED_ATTRIBUTES


def serve(agent: AgentConfig, directory: Path, on_received: Received) -> AbstractContextManager[ReceivingDaemon]:
    """Run a daemon for the length of the block, and give it.

    ``directory`` is private and empty. Raises CommandFailed when the daemon does not start.
    """

    def serve_on(port: int) -> AbstractContextManager[ReceivingDaemon]:
        return ReceivingDaemon(agent, Path(tempfile.mkdtemp(dir=directory)), port, on_received).running()

    nodev_mount.drop_device_capability()
    return daemon.on_free_port(agent.rsyncd.rsyncd_local_address, serve_on)
