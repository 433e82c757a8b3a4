"""The connection to a machine's rsync daemon through the tunnel."""

from __future__ import annotations

import socket
from contextlib import suppress

from turku.errors import BackupFailed

_CONNECT_TIMEOUT_SECONDS = 30.0
_GREETING = b"@RSYNCD:"


class DaemonUnreachable(BackupFailed):
    """No rsync daemon answers behind the tunnel."""


def connect(port: int) -> socket.socket:
    """Return a connection to the rsync daemon behind the tunnel's ``port``. Its greeting is unread, nothing was sent.

    Raises DaemonUnreachable if nobody listens there, or another service does.
    """
    try:
        connection = socket.create_connection(("127.0.0.1", port), timeout=_CONNECT_TIMEOUT_SECONDS)
    except OSError as error:
        raise DaemonUnreachable(
            f"nobody listens at port {port} of the tunnel: {error.strerror or error}",
            hint="the agent's rsync daemon or its ssh ended, or sshd did not let it forward the port",
        ) from error
    try:
        connection.settimeout(_CONNECT_TIMEOUT_SECONDS)
        greeting = b""
        # MSG_WAITALL with MSG_PEEK returns when that many bytes are there, or at the end.
        with suppress(OSError):
            greeting = connection.recv(len(_GREETING), socket.MSG_PEEK | socket.MSG_WAITALL)
        if greeting != _GREETING:
            raise DaemonUnreachable(f"no rsync daemon answers at port {port} of the tunnel")
        # A timeout makes the socket non-blocking, and the relay shares it.
        connection.setblocking(True)
    except BaseException:
        connection.close()
        raise
    return connection
