"""Join tokens: one word, from which nothing can be lost unnoticed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turku.core.secret import Secret
from turku.errors import UsageError
from turku.protocol import join_token
from turku.protocol.join_token import JoinKind, JoinToken

PIN = "SHA256:" + "A" * 43
TOKEN = JoinToken(JoinKind.MACHINE, "https://turku.example.com/v1", Secret("s" * 30), (PIN,))


@pytest.mark.parametrize("kind", JoinKind)
@pytest.mark.parametrize("pins", [(), (PIN,), (PIN, "SHA256:" + "b" * 43)])
def test_a_token_reads_back(kind: JoinKind, pins: tuple[str, ...]) -> None:
    token = JoinToken(kind, "https://turku.example.com:8443/v1", Secret("s" * 30), pins)
    word = token.encode()
    assert word.isascii()
    assert len(word.split()) == 1
    assert join_token.decode(word, kind=kind) == token


def test_a_token_that_a_terminal_wrapped_reads_back() -> None:
    word = TOKEN.encode()
    assert join_token.decode(f" {word[:60]}\n  {word[60:]}\n", kind=JoinKind.MACHINE) == TOKEN


def test_a_token_that_was_cut_off_is_refused_as_such() -> None:
    word = TOKEN.encode()
    for length in range(len("turku-machine-"), len(word)):
        with pytest.raises(UsageError, match="cut off"):
            join_token.decode(word[:length], kind=JoinKind.MACHINE)


def test_a_token_for_the_other_program_is_refused_as_such() -> None:
    with pytest.raises(UsageError, match="is for a machine, and this program sets up a storage"):
        join_token.decode(TOKEN.encode(), kind=JoinKind.STORAGE)


@pytest.mark.parametrize(
    "url", ["http://turku.example.com/v1", "https://name:word@turku.example.com/v1", "file:///etc/passwd", ""]
)
def test_a_token_does_not_lead_to_an_address_that_the_configuration_refuses(url: str) -> None:
    word = JoinToken(JoinKind.MACHINE, url, Secret("s" * 30)).encode()
    with pytest.raises(UsageError, match="no usable address"):
        join_token.decode(word, kind=JoinKind.MACHINE)


def test_a_fingerprint_that_is_none_is_refused() -> None:
    word = JoinToken(JoinKind.MACHINE, TOKEN.url, TOKEN.secret, ("SHA256:short",)).encode()
    with pytest.raises(UsageError, match="another version"):
        join_token.decode(word, kind=JoinKind.MACHINE)


@given(st.text(max_size=200) | st.text(max_size=200).map(lambda text: f"turku-machine-{text}"))
def test_no_text_is_more_than_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError):
        join_token.decode(text, kind=JoinKind.MACHINE)


def test_a_refusal_does_not_show_the_secret() -> None:
    with pytest.raises(UsageError) as refused:
        join_token.decode(TOKEN.encode()[:-1], kind=JoinKind.MACHINE)
    assert "s" * 30 not in f"{refused.value.message}{refused.value.hint}"
