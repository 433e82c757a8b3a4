"""A running rsyncd: its start, the wait for its first answer, and its log."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from turku.agent.config.model import RsyncdConfig
from turku.agent.rsyncd import ports
from turku.agent.rsyncd.ports import PortTaken
from turku.core import command
from turku.core.bounded_log import MessageCounter, kind_of
from turku.errors import CommandFailed

_LOG = logging.getLogger(__name__)
_START_TIMEOUT_SECONDS = 30.0
_GREETING_TIMEOUT_SECONDS = 5.0
_PROBLEM = re.compile(r"rsync( error| warning)?:|@ERROR|auth failed|denied|unable to|failed to", re.IGNORECASE)
_TIMESTAMP = re.compile(r"\A\d{4}/\d\d/\d\d \d\d:\d\d:\d\d \[\d+\] ")
_CAP_SYS_CHROOT = 1 << 18


class DaemonLog:
    """Logs the messages of rsyncd: problems as warnings, until we end the daemon ourselves.

    Of a problem with thousands of files the first messages are logged and the others are counted.
    """

    def __init__(self) -> None:
        self._is_ending = False
        self._counted = MessageCounter()

    def line(self, line: str) -> None:
        text = _TIMESTAMP.sub("", line)
        is_shown = False
        if _PROBLEM.search(text) and not self._is_ending:
            is_shown, is_first_hidden = self._counted.take(kind_of(text))
            if is_first_hidden:
                _LOG.warning("rsyncd: more messages follow; they are counted and not shown")
        _LOG.log(logging.WARNING if is_shown else logging.DEBUG, "rsyncd: %s", text)

    def end(self) -> None:
        """Log the number of messages that were not shown, and log no further message as a warning."""
        self._is_ending = True
        summary = self._counted.summary()
        if summary:
            _LOG.warning("rsyncd: %s", summary)


def start(
    agent: RsyncdConfig,
    configuration: Path,
    port: int,
    log: DaemonLog,
    *,
    environment: Mapping[str, str] | None = None,
    stdout: bool = False,
) -> AbstractContextManager[command.Child]:
    """Start rsyncd with this configuration file for the length of the block.

    With ``stdout`` the caller reads its standard output. Raises PortTaken, CommandFailed.
    """
    ports.require_free(agent.rsyncd_local_address, port)
    return command.start(
        [*agent.rsyncd_command, "--daemon", "--no-detach", f"--config={configuration}"],
        on_line=log.line,
        stdout=stdout,
        extra_environment=environment,
        # At INT and TERM rsync first sleeps for 0.4 s, in case an ssh of its own waits for a password.
        end_signal=signal.SIGUSR1,
    )


def wait_until_ready(daemon: command.Child, address: str, port: int) -> None:
    """Return when the daemon answers. Raises CommandFailed when it does not, PortTaken where another program does."""
    deadline = time.monotonic() + _START_TIMEOUT_SECONDS
    pause_seconds = 0.002
    while not _greets(address, port):
        if daemon.poll() is not None:
            code = daemon.wait(1)
            lines = daemon.last_lines
            kind = PortTaken if any("Address already in use" in line for line in lines) else CommandFailed
            raise kind(f"rsyncd ended with exit code {code} before it answered", details="\n".join(lines))
        if time.monotonic() > deadline:
            raise CommandFailed(
                f"rsyncd did not answer on {address} port {port} within {_START_TIMEOUT_SECONDS:g} s",
                details="\n".join(daemon.last_lines),
            )
        time.sleep(pause_seconds)
        pause_seconds = min(2 * pause_seconds, 0.1)
    if not ports.is_listener_ours(port):
        raise PortTaken(f"another user's program took port {port} on this machine")


def _greets(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), _GREETING_TIMEOUT_SECONDS) as connection:
            greeted = connection.recv(64).startswith(b"@RSYNCD:")
            # Ending the connection by the protocol (an empty list of modules) keeps an error out of rsyncd's log.
            connection.sendall(b"@RSYNCD: 31.0\n#list\n")
            while connection.recv(1024):
                pass
            return greeted
    except OSError:
        return False


def can_change_root(status: Path = Path("/proc/self/status")) -> bool:
    """Return True where rsyncd can be locked into a module: for root, and for a user with CAP_SYS_CHROOT."""
    try:
        with status.open(encoding="ascii", errors="replace") as lines:
            for line in lines:
                name, _colon, value = line.partition(":")
                if name == "CapEff":
                    return bool(int(value, 16) & _CAP_SYS_CHROOT)
    except (OSError, ValueError):
        pass
    return os.geteuid() == 0
