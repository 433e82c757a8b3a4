"""The commands of ``turku-api setup`` with real databases, certificates and servers."""

import socket
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from tests.support.coordinator import PROGRAMS, free_port
from tests.support.postgresql import PostgresqlServer, binaries

from turku.api.configuration import environment
from turku.api.configuration.setup import answers, health_call, plan
from turku.api.configuration.setup.answers import Answers, TlsWay
from turku.core import command
from turku.core.command import CompletedProgram
from turku.core.secret import Secret
from turku.core.setup.host import Host
from turku.core.setup.record import Record
from turku.core.setup.step import State, Step
from turku.errors import CommandFailed
from turku.protocol import join_token
from turku.protocol.join_token import JoinKind

PASSWORD = "correct-horse-battery-staple"


class Site:
    """A host below a directory, on which ``turku-api`` runs with these settings."""

    def __init__(self, root: Path, database_url: str) -> None:
        self.variables = {"TURKU_URL": "https://turku.example.com", "TURKU_ALLOWED_HOSTS": "turku.example.com"}
        if database_url:
            self.variables["TURKU_DATABASE_URL"] = database_url
        self.settings = environment.read({**self.variables, "TURKU_STATE_DIR": "/state"})
        self._root = root
        self.host = Host(root, lambda argv: self._run(argv, None), self._run)

    def _run(self, argv: Sequence[str], content: bytes | None) -> CompletedProgram:
        words = [str(PROGRAMS / "turku-api"), *argv[1:]] if argv[0].endswith("turku-api") else argv
        variables = {**self.variables, "TURKU_STATE_DIR": str(self._root / "state")}
        return command.run(words, timeout_seconds=120, extra_environment=variables, input_bytes=content)

    def take(self, step: Step) -> None:
        record = Record(self.host, plan.PROGRAM)
        assert step.find(self.host, record).state is State.NEEDED
        step.apply(self.host, record)
        assert step.find(self.host, record).state is State.DONE


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    if request.param == "sqlite":
        yield Site(tmp_path, "")
        return
    if binaries() is None:
        pytest.skip("PostgreSQL is not installed")
    with PostgresqlServer() as server:
        yield Site(tmp_path, server.create_database("setup"))


def test_database_account_and_tokens_are_made_once(site: Site) -> None:
    told: list[str] = []
    first = plan.FirstAccount("admin", lambda: Secret(PASSWORD), lambda secret: told.append(secret.reveal()))
    site.take(plan.DatabaseStep(site.settings))
    site.take(plan._account_step(first))
    assert told == [PASSWORD]
    word = plan.Commands(site.host).run("join-token", "create", "storage", "--raw").decode()
    assert join_token.decode(word, kind=JoinKind.STORAGE).url == "https://turku.example.com/v1"


def test_a_weak_password_is_refused_with_the_reason(tmp_path: Path) -> None:
    site = Site(tmp_path, "")
    site.take(plan.DatabaseStep(site.settings))
    first = plan.FirstAccount("admin", lambda: Secret("123"), lambda _secret: None)
    with pytest.raises(CommandFailed) as caught:
        plan._account_step(first).apply(site.host, Record(site.host, plan.PROGRAM))
    assert "too short" in caught.value.details


def test_an_unreachable_database_is_named(tmp_path: Path) -> None:
    site = Site(tmp_path, f"postgresql://turku:secret@127.0.0.1:{free_port()}/turku")
    with pytest.raises(CommandFailed) as caught:
        plan.DatabaseStep(site.settings).apply(site.host, Record(site.host, plan.PROGRAM))
    assert "createdb" in caught.value.hint
    assert "secret" not in f"{caught.value} {caught.value.details}"


def test_a_port_in_use_is_seen() -> None:
    with socket.create_server(("0.0.0.0", 0)) as server:
        assert not answers.is_free(server.getsockname()[1])
    assert answers.is_free(free_port())


class _Answering(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        is_right = self.headers["Host"] == "turku.example.com" and self.path == "/v1/health"
        self.send_response(200 if is_right else 400)
        self.end_headers()
        self.wfile.write(b'{"healthy": true, "date": "2026-01-01"}')

    def log_message(self, *_arguments: object) -> None:
        return


def test_the_health_call_reaches_the_service_by_its_name_on_this_host() -> None:
    with HTTPServer(("127.0.0.1", 0), _Answering) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        bind = f"127.0.0.1:{server.server_port}"
        assert health_call.answers(bind, host_name="turku.example.com", speaks_tls=False)
        assert not health_call.answers(bind, host_name="other.example.com", speaks_tls=False)
        assert not health_call.answers(bind, host_name="turku.example.com", speaks_tls=True)
        server.shutdown()
    assert not health_call.answers(bind, host_name="turku.example.com", speaks_tls=False)


def test_its_own_certificate_is_made_by_openssl(tmp_path: Path) -> None:
    site = Site(tmp_path, "")
    site.take(plan.DatabaseStep(site.settings))
    files = (Path("/state/tls/certificate.pem"), Path("/state/tls/key.pem"))
    made = Answers(("turku.example.com", "192.0.2.1"), "", "UTC", Secret(""), TlsWay.OWN, *files, "[::]:443")
    site.take(plan.CertificateStep(made))
    shown = command.run(
        ["openssl", "x509", "-in", tmp_path / "state/tls/certificate.pem", "-noout", "-ext", "subjectAltName"],
        timeout_seconds=20,
    ).stdout.decode()
    assert "DNS:turku.example.com, IP Address:192.0.2.1" in shown
