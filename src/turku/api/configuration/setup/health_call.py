"""The call by which setup sees that the service answers."""

import http.client
import socket
import ssl
from typing import Final

from turku.core.clock import SYSTEM_CLOCK, Clock

_PATH: Final = "/v1/health"
_TIMEOUT_SECONDS: Final = 5.0
_ANY_ADDRESSES: Final = ("0.0.0.0", "[::]")  # noqa: S104  (an address to compare with)
_PAUSE_SECONDS: Final = 0.5
WAIT_SECONDS: Final = 60.0


def answers(bind: str, *, host_name: str, speaks_tls: bool) -> bool:
    """Return True if the service that listens on ``bind`` of this host says that it is healthy."""
    connection = _connection(bind, speaks_tls=speaks_tls)
    try:
        # A service behind a proxy believes what the proxy on this host says about the scheme.
        headers = {"Host": host_name, "Content-Type": "application/json", "X-Forwarded-Proto": "https"}
        connection.request("POST", _PATH, body=b"{}", headers=headers)
        answer = connection.getresponse()
        return answer.status == http.HTTPStatus.OK and b'"healthy":true' in answer.read().replace(b" ", b"")
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _connection(bind: str, *, speaks_tls: bool) -> http.client.HTTPConnection:
    if bind.startswith("unix:"):
        return _UnixConnection(bind.removeprefix("unix:"))
    host, _, port = bind.rpartition(":")
    host = "127.0.0.1" if host in _ANY_ADDRESSES else host.strip("[]")
    if not speaks_tls:
        return http.client.HTTPConnection(host, int(port), timeout=_TIMEOUT_SECONDS)
    # The call has no secret, and it does not leave this host.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return http.client.HTTPSConnection(host, int(port), timeout=_TIMEOUT_SECONDS, context=context)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_TIMEOUT_SECONDS)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket instead of a host."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_TIMEOUT_SECONDS)
        self.sock.connect(self._path)


def wait(bind: str, *, host_name: str, speaks_tls: bool, clock: Clock = SYSTEM_CLOCK) -> bool:
    """Wait until the service answers. Return False if it does not within a minute."""
    deadline = clock.monotonic_seconds() + WAIT_SECONDS
    while not answers(bind, host_name=host_name, speaks_tls=speaks_tls):
        if clock.monotonic_seconds() >= deadline:
            return False
        clock.sleep(_PAUSE_SECONDS)
    return True
