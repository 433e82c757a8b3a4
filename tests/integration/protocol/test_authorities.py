"""Authorities that an operator made by plain `openssl req -x509`, as strict as each release of Python is by itself.

Python 3.13 sets VERIFY_X509_STRICT, which refuses what lacks an extension. `make check-pythons` runs this there, too.
"""

import ssl
from pathlib import Path
from typing import Any

import pytest
from tests.support.tls import EC, RSA, Files, https_server, openssl, self_signed, signed

from turku.errors import ApiUnreachable
from turku.protocol.client import ApiClient
from turku.protocol.messages import Empty, HealthAnswer

STRICT = ssl.VERIFY_X509_STRICT | getattr(ssl, "VERIFY_X509_PARTIAL_CHAIN", ssl.VerifyFlags(0x80000))


@pytest.fixture(params=["of this Python", "of Python 3.13"], autouse=True)
def strictness(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "of this Python":
        return
    create = ssl.create_default_context

    def strict(*arguments: Any, **options: Any) -> ssl.SSLContext:
        context = create(*arguments, **options)
        context.verify_flags |= STRICT
        return context

    monkeypatch.setattr(ssl, "create_default_context", strict)


def ask(server: Files, trusted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    with https_server(server) as running:
        assert ApiClient(running.url).call("health", Empty(), HealthAnswer).healthy


@pytest.mark.parametrize("key", [EC, RSA], ids=["ec", "rsa"])
def test_an_authority_of_plain_openssl_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: tuple[str, ...]
) -> None:
    authority = self_signed(tmp_path, "authority", key=key)
    ask(signed(tmp_path, "localhost", authority), authority.certificate, monkeypatch)


def test_an_authority_without_any_extension_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = self_signed(tmp_path, "authority")
    bare = Files(tmp_path / "bare.pem", made.key)
    # A certificate of version 1, as old guides make them.
    openssl("req", "-new", "-key", made.key, "-subj", "/CN=authority", "-out", tmp_path / "request")
    openssl("x509", "-req", "-in", tmp_path / "request", "-signkey", made.key, "-days", "1", "-out", bare.certificate)
    ask(signed(tmp_path, "localhost", bare), bare.certificate, monkeypatch)


def test_a_certificate_that_signed_itself_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = self_signed(tmp_path, "localhost", options=("-addext", "subjectAltName=DNS:localhost"))
    ask(made, made.certificate, monkeypatch)


def test_what_is_not_vouched_for_is_refused_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority, other = self_signed(tmp_path, "authority"), self_signed(tmp_path, "other")
    with pytest.raises(ApiUnreachable, match="certificate is not trusted"):
        ask(signed(tmp_path, "localhost", authority), other.certificate, monkeypatch)
    with pytest.raises(ApiUnreachable, match="not valid for 'localhost'"):
        ask(signed(tmp_path, "elsewhere", authority), authority.certificate, monkeypatch)
    # A host whose certificate is no authority's vouches for nobody.
    host = signed(tmp_path, "host", authority, extensions="basicConstraints=critical,CA:FALSE\n")
    chain = signed(tmp_path, "localhost", host)
    chain.certificate.write_text(chain.certificate.read_text() + host.certificate.read_text())
    with pytest.raises(ApiUnreachable, match="certificate is not trusted"):
        ask(chain, authority.certificate, monkeypatch)
