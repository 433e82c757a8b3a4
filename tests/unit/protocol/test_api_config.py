"""The section about the coordinator: how a program registers, and which settings contradict each other."""

from pathlib import Path

from turku.core.configuration.directory import MergedFiles
from turku.core.secret import Secret
from turku.protocol.api_config import ApiConfig, override_registration
from turku.protocol.messages import Registration

URL = "https://turku.example.com/v1"


def test_a_named_auth_comes_before_a_bare_secret() -> None:
    both = ApiConfig(api_url=URL, api_auth=Secret("bare"), api_auth_name="name", api_auth_secret=Secret("named"))
    assert both.registration == Registration(name="name", secret="named")
    assert ApiConfig(api_url=URL, api_auth=Secret("bare")).registration == "bare"
    assert ApiConfig(api_url=URL).registration is None


def test_an_address_that_sends_secrets_in_the_clear_is_a_contradiction() -> None:
    plain = ApiConfig(api_url="http://turku.example.com/v1")
    ((key, message),) = plain.contradictions()
    assert key == "api_url"
    assert "would send secrets in the clear" in message
    allowed = ApiConfig(api_url=plain.api_url, allow_plain_http=True)
    assert list(allowed.contradictions()) == []
    assert allowed.client(Path()) is not None


def test_a_key_is_pinned_for_https_only() -> None:
    keys = ("SHA256:" + "A" * 43,)
    assert list(ApiConfig(api_url=URL, api_key_fingerprints=keys).contradictions()) == []
    ((key, _message),) = ApiConfig(api_url="http://localhost/v1", api_key_fingerprints=keys).contradictions()
    assert key == "api_key_fingerprints"


def test_half_of_a_registration_names_the_missing_half() -> None:
    assert [key for key, _ in ApiConfig(api_url=URL, api_auth_name="name").contradictions()] == ["api_auth_name"]
    only_secret = ApiConfig(api_url=URL, api_auth_secret=Secret("secret"))
    assert [key for key, _ in only_secret.contradictions()] == ["api_auth_secret"]


def test_the_command_line_wins_over_the_files() -> None:
    files = MergedFiles(content={"api_auth": "bare", "api_auth_name": "file"}, origins={})
    override_registration(files, "line", None)
    assert files.content == {"api_auth_name": "line"}
    assert files.origins["api_auth_name"] == Path("the command line")
