"""The check that the port in a request belongs to the session's own tunnel (threats M7)."""

import ipaddress
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from turku.core.kernel import tcp_table
from turku.core.kernel.tcp_table import PROC, TcpSocket, TcpState
from turku.errors import TunnelRefused

_LOG = logging.getLogger(__name__)

_ANCESTORS_LIMIT = 32
_LOOPBACK = (ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::ffff:127.0.0.1"))


def require_own_tunnel(port: int, *, proc: Path = PROC) -> None:
    """Check that ``port`` on 127.0.0.1 is the end of this session's own tunnel, as far as that can be seen.

    The sockets of a tunnel belong to the sshd process that started this one. If the kernel hides that process's
    sockets, the socket's user must be ours. If no sshd started us (a run by hand), a warning is logged.
    Raises TunnelRefused.
    """
    try:
        listeners = list(_sockets(port, TcpState.LISTEN, proc))
    except OSError as error:
        _LOG.warning("cannot see whose port %d is: %s", port, error)
        return
    if not listeners:
        raise TunnelRefused(
            f"nothing listens on 127.0.0.1:{port}",
            hint="the agent's ssh must forward it (-R PORT:127.0.0.1:PORT) before it sends its request; another "
            "program may have taken it on 127.0.0.1 alone, and the agent then tries another port",
        )
    if any(listener.address.is_unspecified for listener in listeners):
        _LOG.warning("port %d listens on more than loopback: sshd_config should have 'GatewayPorts no'", port)
    sshd = _session_sshd(proc)
    if sshd is None:
        _LOG.warning("not started by sshd: cannot see whose port %d is", port)
        return
    try:
        ours = _socket_inodes(sshd, proc)
    except OSError:
        # For an sshd of another user, or a hidden one, only the listener's user can be seen.
        strange = [listener for listener in listeners if listener.uid != os.geteuid()]
        if not strange:
            _LOG.debug("port %d is of our own user; sshd's sockets cannot be seen", port)
    else:
        strange = [listener for listener in listeners if listener.inode not in ours]
    if strange:
        raise TunnelRefused(
            f"port {port} is not this session's tunnel: another program listens there",
            hint="the agent tries another port; a machine that is the storage itself needs "
            '"rsyncd_local_address": "127.0.0.2", so that its rsyncd and its tunnel do not meet on one address',
        )


def is_used(port: int, *, proc: Path = PROC) -> bool:
    """Return True when a program of this host is connected to ``port`` on loopback, or that cannot be seen."""
    try:
        return any(not found.address.is_unspecified for found in _sockets(port, TcpState.ESTABLISHED, proc))
    except OSError:
        return True


def _sockets(port: int, state: TcpState, proc: Path) -> Iterator[TcpSocket]:
    """Yield the TCP sockets of ``port`` on 127.0.0.1 or on every address."""
    for found in tcp_table.sockets(state, port=port, proc=proc):
        if found.address.is_unspecified or found.address in _LOOPBACK:
            yield found


def _session_sshd(proc: Path) -> int | None:
    """Return the process ID of the nearest sshd above us, which holds the session's tunnel."""
    process = os.getppid()
    for _ in range(_ANCESTORS_LIMIT):
        try:
            status = (proc / str(process) / "stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
        # PID (NAME) STATE PARENT ...: the name may contain blanks and parentheses.
        name = status[status.index("(") + 1 : status.rindex(")")]
        if name.startswith("sshd"):
            return process
        process = int(status[status.rindex(")") + 1 :].split()[1])
        if process <= 1:
            return None
    return None


def _socket_inodes(process: int, proc: Path) -> set[int]:
    inodes = set()
    for entry in (proc / str(process) / "fd").iterdir():
        try:
            target = str(entry.readlink())
        except FileNotFoundError:
            continue
        if target.startswith("socket:["):
            inodes.add(int(target[8:-1]))
    return inodes
