"""N1: who stands between a machine and its coordinator or storage gets no secret and no file."""

import getpass
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.attacks.conftest import StartPing
from tests.integration.agent.conftest import PROGRAMS, Machine
from tests.support.hostile_storage import HostileStorage
from tests.support.sshd import Sshd
from tests.support.v1_server import V1Api


class Interceptor:
    """A server in the coordinator's place that keeps everything that reaches it."""

    def __init__(self, context: ssl.SSLContext | None = None, *, redirect_to: str | None = None) -> None:
        self.heard: list[bytes] = []
        interceptor = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                interceptor.heard.append(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(307 if redirect_to else 200)
                self.send_header("Location", redirect_to or "")
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_arguments: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_arguments: Any) -> None:
                """A client that does not trust us hangs up: what we want."""

        self.server = Server(("127.0.0.1", 0), Handler)
        if context is not None:
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)

    @property
    def port(self) -> int:
        return int(self.server.server_address[1])


@contextmanager
def intercepting(context: ssl.SSLContext | None = None, **options: Any) -> Iterator[Interceptor]:
    interceptor = Interceptor(context, **options)
    thread = threading.Thread(target=interceptor.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield interceptor
    finally:
        interceptor.server.shutdown()
        thread.join()
        interceptor.server.server_close()


def certificate(directory: Path, name: str, *, days: int = 1) -> tuple[ssl.SSLContext, Path]:
    """A server's context with a certificate for ``name`` that signed itself, and its file."""
    key, path = directory / f"{name}.key", directory / f"{name}.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-keyout", key, "-out", path, "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"),
            *("-days", str(days)),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path, key)
    return context, path


def trust(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the agent take this certificate for an authority's."""
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)


def test_n1_a_certificate_that_nobody_vouches_for_is_refused(machine: Machine, tmp_path: Path) -> None:
    context, _path = certificate(tmp_path, "localhost")
    with intercepting(context) as interceptor:
        machine.configure(api_url=f"https://localhost:{interceptor.port}/v1")
        update = machine.run("turku-update-config")
    assert update.returncode == 69
    assert "its TLS certificate is not trusted" in update.stderr
    assert interceptor.heard == []


def test_n1_a_trusted_certificate_of_another_name_is_refused(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, path = certificate(tmp_path, "elsewhere.example.com")
    trust(path, monkeypatch)
    with intercepting(context) as interceptor:
        machine.configure(api_url=f"https://localhost:{interceptor.port}/v1")
        update = machine.run("turku-update-config")
    assert update.returncode == 69
    assert "certificate is not valid for 'localhost'" in update.stderr
    assert interceptor.heard == []


def test_n1_the_right_certificate_is_taken(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Without this the two above would prove nothing.
    context, path = certificate(tmp_path, "localhost")
    trust(path, monkeypatch)
    with intercepting(context) as interceptor:
        machine.configure(api_url=f"https://localhost:{interceptor.port}/v1")
        assert machine.run("turku-update-config").returncode == 0
    assert len(interceptor.heard) == 1


def test_n1_nobody_is_followed_out_of_tls(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context, path = certificate(tmp_path, "localhost")
    trust(path, monkeypatch)
    with ExitStack() as stack:
        listener = stack.enter_context(intercepting())
        elsewhere = f"http://127.0.0.1:{listener.port}/v1/update_config"
        interceptor = stack.enter_context(intercepting(context, redirect_to=elsewhere))
        machine.configure(api_url=f"https://localhost:{interceptor.port}/v1")
        assert machine.run("turku-update-config").returncode == 69
    assert interceptor.heard
    assert listener.heard == []


@pytest.mark.parametrize(
    "host", ["turku.example.com", "192.0.2.1", "127.0.0.1.example.com", "[2001:db8::1]", "0.0.0.0"]
)
def test_n1_plain_http_leaves_the_machine_only_where_it_is_allowed(machine: Machine, host: str) -> None:
    machine.configure(api_url=f"http://{host}/v1")
    for program in ("turku-agent-ping", "turku-update-config"):
        run = machine.run(program)
        assert run.returncode == 78
        assert "would send secrets in the clear" in run.stderr
    machine.configure(api_url=f"http://{host}/v1", allow_plain_http=True)
    check = subprocess.run(
        [PROGRAMS / "turku-agent", "check", "--offline", "-c", machine.config_dir],
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert check.returncode == 0


def test_n1_an_sshd_in_the_storage_s_place_gets_nothing(
    machine: Machine, api: V1Api, hostile: HostileStorage, open_session: StartPing, tmp_path: Path
) -> None:
    machine.source("etc", "/etc")
    machine.register()
    authorized_keys = tmp_path / "middle_authorized_keys"
    authorized_keys.write_text(hostile.line((machine.var_dir / "ssh_key.pub").read_text().strip(), "hold"))
    with Sshd(tmp_path / "middle", authorized_keys=authorized_keys) as middle:
        # The storage is announced as it is, but another one answers at its address.
        api.storages["primary"] = {
            "ssh_ping_host": "127.0.0.1",
            "ssh_ping_host_keys": machine.sshd.host_keys,
            "ssh_ping_port": middle.port,
            "ssh_ping_user": getpass.getuser(),
        }
        for arguments, exit_code in (((), 2), (("--restore",), 67)):
            ping = machine.ping(*arguments)
            assert ping.returncode == exit_code
            assert "which this machine does not trust; it gets nothing" in ping.stderr
        assert not any("Accepted" in line for line in middle.last_lines)
    assert list(hostile.directory.iterdir()) == []
