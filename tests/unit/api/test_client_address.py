"""The address that a request is said to come from."""

import dataclasses
from typing import Any

import pytest
from django.test import Client
from tests.support.api_cast import Cast

from turku.api.audit.models import AuditEntry
from turku.api.configuration import environment
from turku.api.configuration.environment import TrustedProxies
from turku.api.request.client_address import client_address


def trusted(text: str) -> TrustedProxies:
    return environment.read({"TURKU_TRUSTED_PROXIES": text}).trusted_proxies


@pytest.mark.parametrize(
    ("peer", "forwarded", "proxies", "address"),
    [
        ("192.0.2.1", "", "", "192.0.2.1"),
        ("192.0.2.1", "203.0.113.9", "", "192.0.2.1"),
        ("192.0.2.1", "203.0.113.9", "10.0.0.0/8", "192.0.2.1"),
        ("10.0.0.1", "203.0.113.9", "10.0.0.0/8", "203.0.113.9"),
        ("10.0.0.1", "127.0.0.1, 203.0.113.9", "10.0.0.0/8", "203.0.113.9"),
        ("10.0.0.1", "203.0.113.9, 10.0.0.2", "10.0.0.0/8", "203.0.113.9"),
        ("10.0.0.1", "203.0.113.9:4711", "10.0.0.1", "203.0.113.9"),
        ("10.0.0.1", "[2001:db8::1]:4711", "10.0.0.1", "2001:db8::1"),
        ("::ffff:10.0.0.1", "::ffff:203.0.113.9", "10.0.0.1", "203.0.113.9"),
        ("10.0.0.1", "unknown", "10.0.0.1", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.9, nonsense", "10.0.0.1", "10.0.0.1"),
        ("10.0.0.1", "", "10.0.0.1", "10.0.0.1"),
        ("", "203.0.113.9", "", ""),
        ("", "203.0.113.9", "unix", "203.0.113.9"),
        ("2001:db8::7", "203.0.113.9", "2001:db8::/32", "203.0.113.9"),
    ],
)
def test_only_trusted_proxies_are_believed(peer: str, forwarded: str, proxies: str, address: str) -> None:
    assert client_address(peer, forwarded, trusted(proxies)) == address


def test_a_text_that_is_no_network_is_a_mistake() -> None:
    read = environment.read({"TURKU_TRUSTED_PROXIES": "10.0.0.1/8, proxy.example.com, unix"})
    assert [mistake.id for mistake in read.errors] == ["turku.E012", "turku.E012"]
    assert read.trusted_proxies == TrustedProxies((), unix_socket=True)


def test_the_number_of_bad_credentials_is_checked() -> None:
    assert environment.read({}).bad_credentials_per_minute == 30
    assert environment.read({"TURKU_BAD_CREDENTIALS_PER_MINUTE": "0"}).bad_credentials_per_minute == 0
    read = environment.read({"TURKU_BAD_CREDENTIALS_PER_MINUTE": "many"})
    assert [mistake.id for mistake in read.errors] == ["turku.E013"]


def test_the_audit_log_has_the_forwarded_address(cast: Cast, settings: Any) -> None:
    settings.TURKU_ENVIRONMENT = dataclasses.replace(
        settings.TURKU_ENVIRONMENT, trusted_proxies=trusted("127.0.0.1"), allow_insecure_cookies=False
    )
    Client().post(
        "/v1/agent_ping_restore",
        {"machine": {"uuid": cast.alice.uuid, "secret": cast.alice.secret}},
        content_type="application/json",
        headers={"X-Forwarded-For": "203.0.113.9"},
    )
    assert AuditEntry.objects.get(action="restore.asked").address == "203.0.113.9"


def test_the_scheme_is_a_trusted_proxys_word_alone(db: None, settings: Any) -> None:
    headers = {"X-Forwarded-Proto": "https"}
    assert "Strict-Transport-Security" not in Client().get("/admin/login/", headers=headers).headers
    settings.TURKU_ENVIRONMENT = dataclasses.replace(settings.TURKU_ENVIRONMENT, trusted_proxies=trusted("127.0.0.1"))
    assert "Strict-Transport-Security" in Client().get("/admin/login/", headers=headers).headers
    assert "Strict-Transport-Security" not in Client().get("/admin/login/").headers
