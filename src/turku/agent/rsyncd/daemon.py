"""A running rsyncd: its port, its start, the wait for its first answer, and its log."""

import errno
import ipaddress
import logging
import os
import re
import secrets
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from turku.agent.config.model import RsyncdConfig
from turku.core import command
from turku.core.kernel import tcp_table
from turku.core.kernel.tcp_table import TcpState
from turku.core.program_output.bounded_log import MessageCounter, kind_of
from turku.errors import CommandFailed
from turku.protocol.messages import PORT_RANGE

T = TypeVar("T")
_ATTEMPTS = 20


class PortTaken(CommandFailed):
    """Another program listens on the port that was drawn."""


def draw_port() -> int:
    """Return a random port of the contract's range."""
    return secrets.choice(PORT_RANGE)


@contextmanager
def on_free_port(address: str, run_on: Callable[[int], AbstractContextManager[T]]) -> Iterator[T]:
    """Give what ``run_on`` gives for a port that was drawn. Others are tried where one is taken on this machine.

    Raises CommandFailed after the last attempt.
    """
    for _attempt in range(_ATTEMPTS):
        try:
            with run_on(draw_port()) as given:
                yield given
                return
        except PortTaken as error:
            _LOG.info("%s; trying another port", error.message)
    raise CommandFailed(f"no free port on {address} for rsyncd in {_ATTEMPTS} attempts")


def require_free(address: str, port: int) -> None:
    """Raise PortTaken where another program listens on the port, CommandFailed where nobody can listen there."""
    family = socket.AF_INET6 if ipaddress.ip_address(address).version == 6 else socket.AF_INET
    with socket.socket(family) as probe:
        # As rsyncd does it: a connection of the last minute that is still closing does not block the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
            probe.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise PortTaken(f"port {port} on {address} is taken on this machine") from error
            raise CommandFailed(
                f"cannot listen on {address} port {port}: {error.strerror}",
                hint="rsyncd_local_address must be an address of this machine",
            ) from error


def is_listener_ours(port: int) -> bool:
    """Return False when a user other than us or root listens on the port.

    Such a program was faster than rsyncd and could feed the storage arbitrary files (threats N4). Returns True where
    the kernel does not name the owners.
    """
    owners: set[int] = set()
    with suppress(OSError):
        owners.update(listener.uid for listener in tcp_table.sockets(TcpState.LISTEN, port=port))
    return owners <= {0, os.geteuid()}


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
    require_free(agent.rsyncd_local_address, port)
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
    if not is_listener_ours(port):
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
