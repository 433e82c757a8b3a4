"""The rsync daemon of a restore: one writable module, offered when it is known where and what, and no more than that.

rsync reads its configuration at each connection, so the module can be added when the storage has said what it would
write. The daemon tells of every file it has received whole, with the checksum of what it wrote.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from turku.agent import rsyncd, runtime_directory
from turku.agent.configuration import Agent
from turku.agent.rsyncd import Listener, Module, PortTaken
from turku.core import command
from turku.core.line_reading import lines_of
from turku.errors import CommandFailed
from turku.protocol.restore_messages import PARTIAL_DIRECTORY, TEMPORARY_DIRECTORY

_LOG_LINE_LIMIT_BYTES = 32 * 1024
_END_TIMEOUT_SECONDS = 10.0
# rsync's log has a line break in a name as ``\#012``, and the backslash of a name that has that itself as ``\#134``.
_ESCAPE = re.compile(rb"\\#([0-3][0-7]{2})")
_WILDCARDS = frozenset(b"*?[")
_LOG = logging.getLogger(__name__)

Received = Callable[[bytes, bytes, int], None]
"""Told of a file: its path in the module, the checksum (of whatever algorithm rsync used), its size."""


class ReceivingDaemon:
    """A running daemon without a module, until ``offer``."""

    def __init__(self, agent: Agent, directory: Path, port: int, on_received: Received) -> None:
        self.port = port
        self._agent = agent
        self._directory = directory
        self._on_received = on_received
        # Names cannot forge a line of the log: nobody who named a file knew this.
        self._token = secrets.token_hex(16).encode()
        self._listener = Listener()
        self._reader: threading.Thread | None = None
        self._configuration = runtime_directory.write_private(directory / "rsyncd.conf", self._text(None, None))

    def offer(self, module: Module, *, paths: Sequence[bytes], closed: Sequence[bytes], may_delete: bool) -> None:
        """Let the module be written: at and below ``paths`` (none: everywhere), and nothing beyond ``closed``, which
        are symbolic links in it."""
        runtime_directory.write_private(self._directory / "secrets", f"{module.username}:{module.password.reveal()}\n")
        rules = self._directory / "rules"
        descriptor = os.open(rules, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(rule_lines(paths, closed))
        text = self._text(module, rules, may_delete=may_delete)
        fresh = runtime_directory.write_private(self._directory / "rsyncd.conf.new", text)
        fresh.replace(self._configuration)

    @contextmanager
    def running(self) -> Iterator[None]:
        """The daemon answers for the length of the block; after it everything that it said was told."""
        address = self._agent.rsyncd_local_address
        rsyncd.require_free(address, self.port)
        argv = [*self._agent.rsyncd_command, "--daemon", "--no-detach", f"--config={self._configuration}"]
        with command.start(
            argv,
            on_line=self._listener.line,
            stdout=True,
            extra_environment={rsyncd.PERCENT_VARIABLE: "%"},
            end_signal=signal.SIGUSR1,
        ) as daemon:
            self._reader = threading.Thread(target=self._read, args=(daemon.stdout,), daemon=True)
            self._reader.start()
            rsyncd.wait_until_it_answers(daemon, address, self.port)
            try:
                yield
            finally:
                self._listener.is_ending = True
        self._reader.join(_END_TIMEOUT_SECONDS)

    def _read(self, stream: IO[bytes]) -> None:
        mark = b"] " + self._token + b" "
        try:
            for line in lines_of(stream, limit_bytes=_LOG_LINE_LIMIT_BYTES):
                _stamp, found, rest = line.partition(mark)
                if not found:
                    self._listener.line(line.rstrip(b"\n").decode("utf-8", "backslashreplace"))
                    continue
                checksum, size, path = rest.rstrip(b"\n").split(b" ", 2)
                if len(checksum) % 2 == 0 and size.isdigit():
                    name = _ESCAPE.sub(lambda match: bytes([int(match[1], 8)]), path)
                    self._on_received(name, bytes.fromhex(checksum.decode("ascii")), int(size))
        except ValueError as error:
            # The stream was closed under us at the end, or a line is none of rsync's: those files are read instead.
            _LOG.debug("rsyncd's log is not read any further: %s", error)

    def _text(self, module: Module | None, rules: Path | None, *, may_delete: bool = False) -> str:
        is_root = os.geteuid() == 0
        lines = [
            f"address = {self._agent.rsyncd_local_address}",
            f"port = {self.port}",
            "log file = /dev/stdout",
            "transfer logging = yes",
            f"log format = {self._token.decode()} %C %l %n",
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
            *(["uid = root", "gid = root"] if is_root else []),
            f"use chroot = {'yes' if rsyncd.can_change_root() else 'no'}",
        ]
        if module is not None:
            lines += [
                f"[{module.name}]",
                f"path = {rsyncd.quoted_path(module.path)}",
                "read only = no",
                "write only = yes",
                f"auth users = {module.username}",
                f"secrets file = {self._directory / 'secrets'}",
                f"exclude from = {rules}",
                *([] if may_delete else ["refuse options = delete* remove-*"]),
            ]
        return "\n".join(lines) + "\n"


@contextmanager
def serve(agent: Agent, directory: Path, on_received: Received) -> Iterator[ReceivingDaemon]:
    """A daemon that answers for the length of the block. ``directory`` is private and empty.

    Raises CommandFailed when it does not come up.
    """
    for attempt in range(1, rsyncd.PORT_ATTEMPTS + 1):
        own = directory / f"daemon-{attempt}"
        own.mkdir(mode=0o700)
        daemon = ReceivingDaemon(agent, own, rsyncd.draw_port(), on_received)
        try:
            with daemon.running():
                yield daemon
                return
        except PortTaken as error:
            _LOG.info("%s; trying another port", error.message)
    raise CommandFailed(f"no free port on {agent.rsyncd_local_address} for rsyncd in {rsyncd.PORT_ATTEMPTS} attempts")


def rule_lines(paths: Sequence[bytes], closed: Sequence[bytes]) -> bytes:
    """rsync's rules, a line each, that let only ``paths`` and what is below them be written, and nothing that a link of
    ``closed`` leads to."""
    lines = [b"- /%b/**" % _pattern(path) for path in closed]
    if paths:
        above: dict[bytes, None] = {}
        for path in paths:
            parts = path.split(b"/")
            above |= {b"/".join(parts[:length]): None for length in range(1, len(parts))}
        lines += [b"+ /%b/" % _plain(path) for path in above]
        for path in paths:
            lines += [b"+ /%b" % _plain(path), b"+ /%b/***" % _pattern(path)]
        lines += [b"+ /%b/***" % TEMPORARY_DIRECTORY.encode(), b"+ %b/***" % PARTIAL_DIRECTORY.encode(), b"- *"]
    return b"".join(line + b"\n" for line in lines)


def _plain(path: bytes) -> bytes:
    """The path as a pattern that has no wildcard, where it can be; a backslash is itself in such a one."""
    return _pattern(path) if _WILDCARDS & set(path) or b"\n" in path or b"\r" in path else path


def _pattern(path: bytes) -> bytes:
    """The path within a pattern that has wildcards. A line break cannot be written; any character stands for it."""
    escaped = b"".join(b"\\" + bytes([byte]) if byte in b"*?[\\" else bytes([byte]) for byte in path)
    return escaped.replace(b"\n", b"?").replace(b"\r", b"?")
