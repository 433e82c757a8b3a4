"""The HTTP client of agent and storage against real sockets: whatever answers, the error is one of ours, and bounded."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from turku.core import command
from turku.errors import ApiForbidden, ApiNotFound, ApiRefused, ApiRejected, ApiThrottled, ApiUnreachable
from turku.protocol.client import ApiClient
from turku.protocol.messages import Empty, HealthAnswer

ANSWER = b'{"healthy": true, "date": "2026-11-24", "counts": {"machine": 1}}'
Reply = Callable[[BaseHTTPRequestHandler], None]


def answer(status: int, body: bytes, **headers: str) -> Reply:
    def reply(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return reply


@contextmanager
def coordinator(reply: Reply) -> Iterator[tuple[str, list[tuple[str, dict[str, str], bytes]]]]:
    """The URL of a server that answers every request so, and what it received."""
    received: list[tuple[str, dict[str, str], bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
            reply(self)

        def log_message(self, *_arguments: object) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", received
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def test_a_call_is_a_post_of_json_and_the_answer_is_typed() -> None:
    with coordinator(answer(200, ANSWER)) as (url, received):
        assert ApiClient(f"{url}/").call("health", Empty(), HealthAnswer).counts == {"machine": 1}
    ((path, headers, body),) = received
    assert (path, body) == ("/v1/health", b"{}")
    assert headers["content-type"] == "application/json"
    assert headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *((400, ApiRejected), (403, ApiForbidden), (404, ApiNotFound), (405, ApiRefused), (429, ApiThrottled)),
        *((408, ApiRefused), (413, ApiRefused), (451, ApiRefused)),
    ],
)
def test_each_refusal_is_a_branch_of_its_own_with_the_sentence(status: int, kind: type[ApiRefused]) -> None:
    with coordinator(answer(status, b'{"error": "machine.uuid: is not a UUID"}')) as (url, _received):
        with pytest.raises(ApiRefused, match=f"refused with {status}") as refused:
            ApiClient(url).call("health", Empty(), HealthAnswer)
        assert type(refused.value) is kind
        assert "machine.uuid: is not a UUID" in refused.value.details
        assert bool(refused.value.hint) == (status in (403, 404, 405))


def test_a_page_for_people_is_not_shown_and_the_address_is_doubted() -> None:
    page = b"<!doctype html>\n<html><title>Not Found</title></html>"
    with coordinator(answer(404, page)) as (url, _received), pytest.raises(ApiRefused) as refused:
        ApiClient(url).call("health", Empty(), HealthAnswer)
    assert refused.value.details == ""
    assert "/v1" in refused.value.hint


@pytest.mark.parametrize("status", [500, 502, 503])
def test_a_fault_of_the_other_side_is_worth_another_try(status: int) -> None:
    with coordinator(answer(status, b"<html>")) as (url, _received), pytest.raises(ApiUnreachable, match=str(status)):
        ApiClient(url).call("health", Empty(), HealthAnswer)


def test_a_redirect_is_not_followed_with_secrets() -> None:
    with (
        coordinator(answer(200, ANSWER)) as (elsewhere, received),
        coordinator(answer(307, b"", Location=f"{elsewhere}/health")) as (url, _received),
        pytest.raises(ApiUnreachable, match="307"),
    ):
        ApiClient(url).call("health", Empty(), HealthAnswer)
    assert received == []


@pytest.mark.parametrize("body", [b"<html>welcome</html>", b"", b"[]", b'{"healthy": "yes"}', b"\xff"])
def test_an_answer_that_is_not_the_contract_s_is_reported_as_such(body: bytes) -> None:
    with coordinator(answer(200, body)) as (url, _received):
        with pytest.raises(ApiUnreachable, match="not the contract's") as caught:
            ApiClient(url).call("health", Empty(), HealthAnswer)
        assert "api_url" in caught.value.hint


def test_nobody_there_is_an_error_in_one_line() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with pytest.raises(ApiUnreachable, match="Connection refused") as caught:
        ApiClient(f"http://127.0.0.1:{port}/v1").call("health", Empty(), HealthAnswer)
    assert "\n" not in caught.value.message


def test_a_host_without_an_address_is_an_error() -> None:
    with pytest.raises(ApiUnreachable):
        ApiClient("https://no-such-host.invalid/v1").call("health", Empty(), HealthAnswer)


def test_an_answer_that_breaks_off_is_an_error() -> None:
    def reply(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(ANSWER)
        handler.close_connection = True

    with coordinator(reply) as (url, _received), pytest.raises(ApiUnreachable):
        ApiClient(url).call("health", Empty(), HealthAnswer)


def test_tls_is_verified(tmp_path: Path) -> None:
    command.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "1"),
            *("-keyout", tmp_path / "key", "-out", tmp_path / "certificate"),
        ],
        timeout_seconds=30,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "certificate", tmp_path / "key")
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def shake_hands() -> None:
            connection, _address = listener.accept()
            with connection, suppress(OSError):
                context.wrap_socket(connection, server_side=True)

        thread = threading.Thread(target=shake_hands)
        thread.start()
        with pytest.raises(ApiUnreachable, match="certificate"):
            ApiClient(f"https://localhost:{listener.getsockname()[1]}/v1").call("health", Empty(), HealthAnswer)
        thread.join(10)


def test_a_netrc_file_adds_no_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login root password hunter2\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with coordinator(answer(200, ANSWER)) as (url, received):
        ApiClient(url).call("health", Empty(), HealthAnswer)
    assert "authorization" not in received[0][1]
