"""The proxy on the way to the coordinator: which one the environment names, and what is sent to it."""

import http.client
from pathlib import Path

import pytest

from turku.errors import ApiUnreachable
from turku.protocol.client import ApiClient

VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def no_proxy_of_this_host(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def connection(url: str) -> tuple[http.client.HTTPConnection, str, dict[str, str]]:
    return ApiClient(url, allow_plain_http=True)._connection("/v1/health")


def test_plain_http_names_the_whole_address_to_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://user:pass%20word@proxy.example.com:3128")
    opened, target, headers = connection("http://turku.example.com/v1")
    assert (opened.host, opened.port) == ("proxy.example.com", 3128)
    assert target == "http://turku.example.com/v1/health"
    assert headers["Proxy-Authorization"] == "Basic dXNlcjpwYXNzIHdvcmQ="


def test_https_goes_through_a_tunnel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("all_proxy", "proxy.example.com:3128")
    opened, target, _ = connection("https://turku.example.com/v1")
    assert (opened.host, target) == ("proxy.example.com", "/v1/health")
    assert opened._tunnel_host == "turku.example.com"  # type: ignore[attr-defined]  # it has no public name


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000/v1", "http://exempt.example.com/v1"])
def test_loopback_and_exempt_hosts_need_no_proxy(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy.example.com:3128")
    monkeypatch.setenv("no_proxy", "exempt.example.com")
    opened, _, headers = connection(url)
    assert opened.host != "proxy.example.com"
    assert "Proxy-Authorization" not in headers


@pytest.mark.parametrize("proxy", ["https://proxy.example.com", "socks5://proxy.example.com:1080", "http://[::1"])
def test_a_proxy_of_another_kind_is_an_error_that_names_the_variable(
    proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", proxy)
    with pytest.raises(ApiUnreachable, match="is not of the form") as caught:
        connection("http://turku.example.com/v1")
    assert "http_proxy" in caught.value.hint


def test_authorities_that_cannot_be_read_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "missing"))
    with pytest.raises(ApiUnreachable, match="no certificate authorities"):
        connection("https://turku.example.com/v1")
