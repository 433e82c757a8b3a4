"""A private coordinator that speaks TLS itself, with a certificate that it made or a given one.

with tls_coordinator(state_dir) as coordinator:
    coordinator.url           'https://127.0.0.1:PORT/v1'
    coordinator.files         its certificate and key
    coordinator.fingerprint() the fingerprint of the key that it shows now
"""

import http.client
import socket
import ssl
from http import HTTPStatus
from pathlib import Path
from typing import Any

import requests
from tests.support.coordinator import PROGRAMS, Coordinator
from tests.support.tls import Files

from turku.api.configuration.tls import creation
from turku.protocol import certificate

THREADS = 4


class TlsCoordinator(Coordinator):
    """A running coordinator, as a context manager. Its certificate is for ``localhost`` and 127.0.0.1."""

    def __init__(self, state_dir: Path, *, files: Files | None = None, **settings: Any) -> None:
        if files is None:
            made = creation.create_certificate(state_dir / "tls", ["localhost", "127.0.0.1"])
            files = Files(made.certificate, made.key)
        self.files = files
        variables = {"TURKU_TLS_CERTIFICATE": str(files.certificate), "TURKU_TLS_KEY": str(files.key)}
        super().__init__(state_dir, workers=1, environment={**variables, **settings.pop("environment", {})}, **settings)
        self.url = f"https://127.0.0.1:{self.port}/v1"

    def start(self) -> None:
        serve = ("serve", "--bind", f"127.0.0.1:{self.port}", "--workers", "1", "--threads", str(THREADS))
        self._run([PROGRAMS / "turku-api", *serve], self._environment)

    def call(self, name: str, message: Any, *, timeout_seconds: float = 30) -> requests.Response:
        return requests.post(
            f"{self.url}/{name}", json=message, timeout=timeout_seconds, verify=str(self.files.certificate)
        )

    def fingerprint(self) -> str:
        """The fingerprint of the key that a new connection is shown."""
        with self.connected() as plain, _trusting().wrap_socket(plain) as tls:
            return certificate.parse(tls.getpeercert(binary_form=True) or b"").key_fingerprint

    def connected(self, *, source: str = "127.0.0.1") -> socket.socket:
        """A new TCP connection to it, from an address of this computer."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=30, source_address=(source, 0))

    def secured(self, *, source: str = "127.0.0.1", receives_bytes: int = 0) -> ssl.SSLSocket:
        """A new TLS connection to it, from an address of this computer, which may have a small buffer for answers."""
        plain = socket.socket()
        if receives_bytes:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receives_bytes)
            # As on the Internet. In the large segments of loopback the kernel takes in a megabyte at once.
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
        plain.settimeout(30)
        plain.bind((source, 0))
        plain.connect(("127.0.0.1", self.port))
        return _trusting().wrap_socket(plain)

    def _answers(self) -> bool:
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=5, context=_trusting())
        try:
            connection.request("POST", "/v1/health", b"{}", {"Content-Type": "application/json"})
            return connection.getresponse().status == HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


def _trusting() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
