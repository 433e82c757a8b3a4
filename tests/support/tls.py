"""Certificates as an operator makes them with openssl, and an HTTPS server that shows one.

certificate = self_signed(directory, "turku.example.com")      Files(certificate, key)
authority = self_signed(directory, "authority")
certificate = signed(directory, "localhost", authority)
with https_server(certificate) as server:
    server.url         'https://localhost:PORT/v1'
    server.received    the bodies of the requests
"""

import ssl
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
RSA = ("-newkey", "rsa:2048")
ED25519 = ("-newkey", "ed25519")
HEALTH = b'{"healthy": true, "date": "2026-11-24", "counts": {"machine": 1}}'


@dataclass(frozen=True)
class Files:
    """A certificate and its key."""

    certificate: Path
    key: Path

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the key, as openssl's own programs compute it."""
        pipeline = (
            f"openssl x509 -in '{self.certificate}' -noout -pubkey | openssl pkey -pubin -outform DER "
            "| openssl dgst -sha256 -binary | openssl enc -base64 -A"
        )
        shown = subprocess.run(["/bin/sh", "-c", pipeline], check=True, capture_output=True, text=True).stdout
        return f"SHA256:{shown.strip().rstrip('=')}"

    @property
    def der(self) -> bytes:
        return ssl.PEM_cert_to_DER_cert(self.certificate.read_text())


def openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def self_signed(directory: Path, name: str, *, key: Sequence[str] = EC, options: Sequence[str] = ()) -> Files:
    """A certificate made by plain `openssl req -x509`, for the subject ``name`` and with no other option than these."""
    files = Files(directory / f"{name}.pem", directory / f"{name}.key")
    made: list[str | Path] = ["req", "-x509", *key, "-nodes", "-keyout", files.key, "-out", files.certificate]
    made += ["-subj", f"/CN={name}", "-days", "1", *options]
    openssl(*made)
    return files


def signed(directory: Path, name: str, authority: Files, *, extensions: str | None = None) -> Files:
    """A certificate for the host ``name``, which the authority signed."""
    files = Files(directory / f"{name}.signed.pem", directory / f"{name}.signed.key")
    request, extension_file = directory / f"{name}.csr", directory / f"{name}.ext"
    extension_file.write_text(f"subjectAltName=DNS:{name}\n" if extensions is None else extensions)
    openssl("req", "-new", *EC, "-nodes", "-keyout", files.key, "-out", request, "-subj", f"/CN={name}")
    openssl(
        *("x509", "-req", "-in", request, "-CA", authority.certificate, "-CAkey", authority.key, "-CAcreateserial"),
        *("-days", "1", "-extfile", extension_file, "-out", files.certificate),
    )
    return files


@dataclass
class HttpsServer:
    """A server that keeps every body that reaches it."""

    port: int
    received: list[bytes] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}/v1"


@contextmanager
def https_server(
    files: Files, *, answer: bytes = HEALTH, version: ssl.TLSVersion | None = None
) -> Iterator[HttpsServer]:
    """Yield a server with this certificate, which gives every call the same answer."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    if version is not None:
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = version

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            found.received.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_arguments: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def finish_request(self, request: Any, client_address: Any) -> None:
            with context.wrap_socket(request, server_side=True) as connection:
                super().finish_request(connection, client_address)

        def handle_error(self, *_arguments: Any) -> None:
            """A client that does not trust us hangs up."""

    server = Server(("127.0.0.1", 0), Handler)
    found = HttpsServer(server.server_port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
