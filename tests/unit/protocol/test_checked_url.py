"""The address of the coordinator: secrets go over TLS, or stay on this host (threats N1)."""

import pytest

from turku.errors import ConfigurationError
from turku.protocol.client import checked_url


@pytest.mark.parametrize(
    "url",
    [
        "https://turku.example.com/v1",
        "https://turku.example.com:8443/turku/v1",
        "http://localhost:8000/v1",
        "http://127.0.0.1:8000/v1",
        "http://127.9.9.9/v1",
        "http://[::1]:8000/v1",
    ],
)
def test_https_and_loopback_are_taken_as_they_are(url: str) -> None:
    assert checked_url(url) == url


def test_a_slash_at_the_end_is_left_out() -> None:
    assert checked_url("https://turku.example.com/v1/") == "https://turku.example.com/v1"


@pytest.mark.parametrize(
    "url", ["http://turku.example.com/v1", "http://10.0.0.1/v1", "http://localhost.example.com/v1", "http://0.0.0.0/"]
)
def test_plain_http_to_elsewhere_is_refused_unless_allowed(url: str) -> None:
    with pytest.raises(ConfigurationError, match="in the clear") as refused:
        checked_url(url)
    assert "allow_plain_http" in refused.value.hint
    assert checked_url(url, allow_plain_http=True) == url.rstrip("/")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "turku.example.com",
        "ftp://x/v1",
        "https://",
        "https:///v1",
        "file:///etc/passwd",
        "https://[",
        "https://x:99999/v1",
        "https://x:port/v1",
    ],
)
def test_a_text_that_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"is not an http\(s\) address"):
        checked_url(url, allow_plain_http=True)


def test_credentials_in_the_address_are_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigurationError) as refused:
        checked_url("https://user:hunter2@turku.example.com/v1")
    assert "hunter2" not in refused.value.message
