"""The coordinator's own TLS: certificates, their renewal, and clients that are slow on purpose."""

import os
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import requests
from tests.support.coordinator import Coordinator
from tests.support.tls import Files, openssl, self_signed, signed
from tests.support.tls_coordinator import TlsCoordinator
from tests.support.v1_client import V1Machine

from turku.api.configuration.tls.arrivals import HEADERS_LIMIT_BYTES, MOST_ARRIVING
from turku.api.configuration.tls.worker import MOST_IDLE
from turku.errors import CommandFailed

SLOW_CLIENTS = 50
SOURCES = {"etc": {"path": "/etc"}}


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsCoordinator]:
    with TlsCoordinator(tmp_path_factory.mktemp("tls") / "state") as running:
        yield running


@pytest.fixture
def machine(coordinator: TlsCoordinator) -> V1Machine:
    machine = V1Machine(coordinator.post, auth=coordinator.create_auth("machine_reg"))
    machine.update_config(SOURCES)
    return machine


def wait_for(condition: Callable[[], bool], *, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def test_calls_and_pages_work(coordinator: TlsCoordinator, machine: V1Machine) -> None:
    assert machine.due() == {}
    with requests.Session() as session:
        session.trust_env = False
        session.verify = str(coordinator.files.certificate)
        for _ in range(3):
            page = session.get(f"https://127.0.0.1:{coordinator.port}/admin/login/", timeout=30)
            assert page.status_code == 200
            # The scheme is known without a proxy's header.
            assert "Strict-Transport-Security" in page.headers
        large = {"machine": {"uuid": machine.uuid, "secret": machine.secret, "comment": "x" * 1_000_000}}
        assert session.post(f"{coordinator.url}/agent_ping_checkin", json=large, timeout=30).status_code == 200
        huge = session.post(f"{coordinator.url}/agent_ping_checkin", data=b"x" * 3_000_000, timeout=30)
        assert huge.status_code == 413


def test_its_own_certificate_passes_the_strictest_verification(coordinator: TlsCoordinator) -> None:
    context = ssl.create_default_context(cafile=coordinator.files.certificate)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    for name in ("localhost", "127.0.0.1"):
        with coordinator.connected() as plain, context.wrap_socket(plain, server_hostname=name) as tls:
            assert tls.version() == "TLSv1.3"
    with coordinator.connected() as plain, pytest.raises(ssl.SSLCertVerificationError):
        context.wrap_socket(plain, server_hostname="elsewhere")


def test_it_signs_no_other_certificate(coordinator: TlsCoordinator, tmp_path: Path) -> None:
    forged = signed(tmp_path, "localhost", coordinator.files)
    (tmp_path / "state").mkdir(mode=0o700)
    with TlsCoordinator(tmp_path / "state", files=forged) as other, other.connected() as plain:
        context = ssl.create_default_context(cafile=coordinator.files.certificate)
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        with pytest.raises(ssl.SSLCertVerificationError):
            context.wrap_socket(plain, server_hostname="localhost")


def test_old_versions_of_tls_are_refused(coordinator: TlsCoordinator) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    with coordinator.connected() as plain, pytest.raises((ssl.SSLError, ConnectionError)):
        context.wrap_socket(plain)


def begin_nothing(coordinator: TlsCoordinator, stack: ExitStack) -> None:
    stack.enter_context(coordinator.connected())


def begin_handshake(coordinator: TlsCoordinator, stack: ExitStack) -> None:
    stack.enter_context(coordinator.connected()).sendall(b"\x16\x03\x01\x02")


def begin_headers(coordinator: TlsCoordinator, stack: ExitStack) -> None:
    stack.enter_context(coordinator.secured()).sendall(b"POST /v1/health HTTP/1.1\r\nHost: loc")


def begin_body(coordinator: TlsCoordinator, stack: ExitStack) -> None:
    head = b"POST /v1/health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"
    stack.enter_context(coordinator.secured()).sendall(head + b"{")


def begin_chunks(coordinator: TlsCoordinator, stack: ExitStack) -> None:
    head = b"POST /v1/health HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    stack.enter_context(coordinator.secured()).sendall(head + b"5\r\nx")


def stay_after_an_answer(coordinator: TlsCoordinator, stack: ExitStack) -> None:
    connection = stack.enter_context(coordinator.secured())
    connection.sendall(b"POST /v1/health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}")
    assert connection.recv(100).startswith(b"HTTP/1.1 200")
    connection.sendall(b"POST /v1/hea")


def begin_behind_a_whole_request(coordinator: TlsCoordinator, stack: ExitStack) -> None:
    head = b"POST /v1/health HTTP/1.1\r\nHost: localhost\r\nContent-Length: "
    stack.enter_context(coordinator.secured()).sendall(head + b"2\r\n\r\n{}" + head + b"1000\r\n\r\n{")


LARGE_ANSWER = b"GET /static/admin/js/vendor/xregexp/xregexp.js HTTP/1.1\r\nHost: localhost\r\n\r\n"


def read_no_answer(coordinator: TlsCoordinator, stack: ExitStack) -> None:
    stack.enter_context(coordinator.secured(receives_bytes=4096)).sendall(LARGE_ANSWER)


@pytest.mark.parametrize(
    "begin",
    [
        begin_nothing,
        begin_handshake,
        begin_headers,
        begin_body,
        begin_chunks,
        stay_after_an_answer,
        begin_behind_a_whole_request,
        read_no_answer,
    ],
)
def test_clients_that_never_finish_keep_nobody_waiting(
    coordinator: TlsCoordinator, machine: V1Machine, begin: Callable[[TlsCoordinator, ExitStack], None]
) -> None:
    with ExitStack() as stack:
        for _ in range(SLOW_CLIENTS):
            begin(coordinator, stack)
        begun = time.monotonic()
        assert machine.due() == {}
        assert time.monotonic() - begun < 2


def test_an_answer_that_is_read_late_is_whole_and_its_connection_goes_on(coordinator: TlsCoordinator) -> None:
    with coordinator.secured(receives_bytes=4096) as connection:
        found = []
        for _ in range(2):
            connection.sendall(LARGE_ANSWER)
            time.sleep(0.5)
            head, _, body = connection.recv(4096).partition(b"\r\n\r\n")
            length = int(re.findall(rb"(?i)content-length: (\d+)", head)[0])
            while len(body) < length:
                chunk = connection.recv(65536)
                assert chunk, f"it ended after {len(body)} of {length} bytes"
                body += chunk
            found.append(body)
    assert len(found[0]) == length > 300_000
    assert found[0] == found[1]
    path = "/static/admin/js/vendor/xregexp/xregexp.js"
    url = f"{coordinator.url.removesuffix('/v1')}{path}"
    assert requests.get(url, verify=str(coordinator.files.certificate), timeout=30).content == found[0]


def test_headers_in_records_of_one_byte_keep_nobody_waiting(coordinator: TlsCoordinator, machine: V1Machine) -> None:
    with ExitStack() as stack:
        connections = [stack.enter_context(coordinator.secured(source="127.0.0.3")) for _ in range(4)]

        def drip(connection: ssl.SSLSocket) -> None:
            # The answer to a header that is too long may come first.
            with suppress(OSError):
                for _ in range(HEADERS_LIMIT_BYTES):
                    connection.send(b"\r")

        threads = [threading.Thread(target=drip, args=(connection,)) for connection in connections]
        for thread in threads:
            thread.start()
        begun = time.monotonic()
        assert machine.due() == {}
        assert time.monotonic() - begun < 2
        for thread in threads:
            thread.join()


def test_a_flood_from_one_network_pushes_out_none_of_another(coordinator: TlsCoordinator) -> None:
    request = b"POST /v1/health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}"
    with ExitStack() as stack:
        slow = stack.enter_context(coordinator.secured(source="127.0.0.2"))
        slow.sendall(request[:20])
        first = stack.enter_context(coordinator.connected(source="127.0.0.3"))
        for _ in range(MOST_ARRIVING + 20):
            stack.enter_context(coordinator.connected(source="127.0.0.3"))
        # The oldest of the flood is hung up, and the machine that was there before is not.
        assert first.recv(1) == b""
        slow.sendall(request[20:])
        assert slow.recv(100).startswith(b"HTTP/1.1 200")


def test_connections_that_are_kept_alive_leave_room_for_new_ones(
    coordinator: TlsCoordinator, machine: V1Machine
) -> None:
    request = b"POST /v1/health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}"
    with ExitStack() as stack:
        idle = []
        for _ in range(MOST_IDLE + 20):
            connection = stack.enter_context(coordinator.secured(source="127.0.0.3"))
            connection.sendall(request)
            idle.append(connection.recv(1000))
        assert b"connection: keep-alive" in idle[0].lower()
        assert b"connection: close" in idle[-1].lower()
        assert machine.due() == {}


def test_a_renewed_certificate_is_served_without_a_restart(tmp_path: Path) -> None:
    def replace(source: Path, target: Path) -> None:
        copy = tmp_path / "copy"
        copy.write_bytes(source.read_bytes())
        copy.chmod(0o600)
        copy.rename(target)

    with TlsCoordinator(tmp_path / "state") as coordinator:
        first = coordinator.fingerprint()
        assert first == coordinator.files.fingerprint
        replace(self_signed(tmp_path, "other").certificate, coordinator.files.certificate)
        assert coordinator.fingerprint() == first
        wait_for(lambda: any("is not the key of" in line for line in coordinator.last_lines))
        renewed = self_signed(tmp_path, "localhost")
        replace(renewed.key, coordinator.files.key)
        replace(renewed.certificate, coordinator.files.certificate)
        assert coordinator.fingerprint() == renewed.fingerprint
        coordinator.files.certificate.write_text("broken")
        assert coordinator.fingerprint() == renewed.fingerprint
        wait_for(lambda: any("is not a certificate" in line for line in coordinator.last_lines))


def failure(directory: Path, files: Files) -> str:
    with pytest.raises(CommandFailed) as caught, TlsCoordinator(directory / "state", files=files):
        pass
    return caught.value.details


def test_unusable_files_are_refused_before_the_first_connection(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    files, other = self_signed(tmp_path, "localhost"), self_signed(tmp_path, "other")
    assert "is not the key of" in failure(tmp_path, Files(files.certificate, other.key))
    assert "localhost.missing: cannot be read" in failure(tmp_path, Files(tmp_path / "localhost.missing", files.key))
    assert "is not a certificate" in failure(tmp_path, Files(files.key, files.key))
    (tmp_path / "encrypted").touch(mode=0o600)
    openssl("pkey", "-in", files.key, "-aes256", "-passout", "pass:secret", "-out", tmp_path / "encrypted")
    assert "the key is encrypted" in failure(tmp_path, Files(files.certificate, tmp_path / "encrypted"))
    files.key.chmod(0o644)
    assert "other users may read" in failure(tmp_path, files)


def test_one_variable_alone_is_a_mistake(tmp_path: Path) -> None:
    coordinator = Coordinator(tmp_path / "state", environment={"TURKU_TLS_KEY": "/etc/turku-api/key.pem"})
    with pytest.raises(CommandFailed) as caught, coordinator:
        pass
    assert "turku.E017" in caught.value.details
    assert os.path.lexists(tmp_path / "state")
