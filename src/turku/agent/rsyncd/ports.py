"""The local port of an rsyncd: drawn at random, and checked to be ours."""

from __future__ import annotations

import errno
import ipaddress
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import suppress

from turku.core.kernel import tcp_table
from turku.core.kernel.tcp_table import TcpState
from turku.errors import CommandFailed
from turku.protocol.messages import PORT_RANGE

_ATTEMPTS = 20


class PortTaken(CommandFailed):
    """Another program listens on the port that was drawn."""


def draw_port() -> int:
    """Return a random port of the contract's range."""
    return secrets.choice(PORT_RANGE)


def candidates(address: str) -> Iterator[int]:
    """Yield random ports to try. Raises CommandFailed after the last attempt."""
    for _attempt in range(_ATTEMPTS):
        yield draw_port()
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
    owners = set()
    with suppress(OSError):
        for listener in tcp_table.sockets(TcpState.LISTEN, port=port):
            owners.add(listener.uid)
    return owners <= {0, os.geteuid()}
