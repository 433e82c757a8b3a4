"""A client that pins keys, against real TLS servers and a real proxy: the key counts, and nothing else."""

import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from tests.support.tls import EC, ED25519, RSA, Files, https_server, openssl, self_signed, signed

from turku.errors import ApiUnreachable
from turku.protocol import certificate
from turku.protocol.client import ApiClient
from turku.protocol.messages import Empty, HealthAnswer


def ask(url: str, *keys: str) -> ApiClient:
    client = ApiClient(url, accepted_keys=keys)
    assert client.call("health", Empty(), HealthAnswer).counts == {"machine": 1}
    return client


@pytest.mark.parametrize("key", [EC, RSA, ED25519], ids=["ec", "rsa", "ed25519"])
def test_the_fingerprint_is_that_of_openssl(tmp_path: Path, key: Sequence[str]) -> None:
    files = self_signed(tmp_path, "turku", key=key)
    assert certificate.parse(files.der).key_fingerprint == files.fingerprint
    assert certificate.parse(files.der).is_self_made
    host = signed(tmp_path, "localhost", files)
    assert certificate.parse(host.der).key_fingerprint == host.fingerprint
    assert not certificate.parse(host.der).is_self_made


def test_the_pinned_key_is_taken_whatever_its_certificate_says(tmp_path: Path) -> None:
    made = self_signed(tmp_path, "elsewhere")
    files = Files(tmp_path / "ended.pem", made.key)
    openssl("x509", "-in", made.certificate, "-signkey", made.key, "-days", "-1", "-out", files.certificate)
    with https_server(files) as server:
        client = ask(server.url, "SHA256:" + "A" * 43, files.fingerprint)
        assert client.seen_key == files.fingerprint
        ask(f"https://127.0.0.1:{server.port}/v1", files.fingerprint)


def test_a_renewed_certificate_of_the_same_key_is_taken(tmp_path: Path) -> None:
    files = self_signed(tmp_path, "localhost")
    renewed = self_signed(tmp_path, "renewed", key=("-new", "-key", str(files.key)))
    with https_server(Files(renewed.certificate, files.key)) as server:
        ask(server.url, files.fingerprint)


def test_another_key_gets_nothing_even_with_a_certificate_that_the_system_trusts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned = self_signed(tmp_path, "pinned")
    authority = self_signed(tmp_path, "authority")
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    forged = signed(tmp_path, "localhost", authority)
    with https_server(forged) as server:
        ask(server.url)
        server.received.clear()
        with pytest.raises(ApiUnreachable) as caught:
            ask(server.url, pinned.fingerprint)
        assert server.received == []
    assert forged.fingerprint in caught.value.message
    assert pinned.fingerprint in caught.value.message
    assert "turku-api tls show" in caught.value.hint
    assert "api_key_fingerprints" in caught.value.hint


def test_old_versions_of_tls_are_refused(tmp_path: Path) -> None:
    files = self_signed(tmp_path, "localhost")
    with https_server(files, version=ssl.TLSVersion.TLSv1_1) as server, pytest.raises(ApiUnreachable):
        ask(server.url, files.fingerprint)
    with https_server(files, version=ssl.TLSVersion.TLSv1_2) as server:
        ask(server.url, files.fingerprint)


def test_no_connection_without_tls_is_taken_for_a_pinned_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        with pytest.raises(ApiUnreachable, match="the key of its certificate is none"):
            ask(url, "SHA256:" + "A" * 43)


@contextmanager
def connect_proxy(port: int) -> Iterator[tuple[str, list[str]]]:
    """A proxy that knows CONNECT and leads every name to this port. Yields its URL and the names."""
    asked: list[str] = []

    def relay(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def serve(client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", port)) as server:
            head = b""
            while b"\r\n\r\n" not in head:
                head += client.recv(4096)
            asked.append(head.split()[1].decode())
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=relay, args=(server, client), daemon=True)
            back.start()
            relay(client, server)
            back.join(10)

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            while True:
                try:
                    client, _address = listener.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(client,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", asked


def test_the_key_counts_behind_a_proxy_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, other = self_signed(tmp_path, "turku"), self_signed(tmp_path, "other")
    with https_server(files) as server, connect_proxy(server.port) as (proxy, asked):
        monkeypatch.setenv("https_proxy", proxy)
        ask("https://turku.example.com/v1", files.fingerprint)
        assert asked == ["turku.example.com:443"]
        server.received.clear()
        with pytest.raises(ApiUnreachable, match=r"only SHA256:\S+ is accepted"):
            ask("https://turku.example.com/v1", other.fingerprint)
        assert server.received == []
