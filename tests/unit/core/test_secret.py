"""A secret never prints itself (threats N5)."""

import json
import logging
from dataclasses import dataclass

import msgspec
import pytest

from turku.core.secret import GENERATED_LENGTH, Secret, generate_secret

TEXT = "correct horse battery staple"


@dataclass
class Holder:
    secret: Secret


def test_a_secret_prints_as_stars_in_every_form() -> None:
    secret = Secret(TEXT)
    forms = [
        str(secret),
        repr(secret),
        f"{secret}",
        f"{secret!r}",
        "%s" % secret,  # noqa: UP031
        repr(Holder(secret)),
        repr([secret]),
    ]
    assert all(TEXT not in form and "***" in form for form in forms)


def test_a_secret_in_a_log_message_is_stars(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        logging.getLogger("test").info("registering with %s", Secret(TEXT))
    assert caplog.messages == ["registering with ***"]


def test_a_secret_is_not_encoded_by_accident() -> None:
    with pytest.raises(TypeError):
        json.dumps({"secret": Secret(TEXT)})
    with pytest.raises(TypeError):
        msgspec.json.encode({"secret": Secret(TEXT)})


def test_only_reveal_gives_the_text() -> None:
    assert Secret(TEXT).reveal() == TEXT


def test_secrets_compare_by_their_text_and_with_nothing_else() -> None:
    assert Secret(TEXT) == Secret(TEXT)
    assert Secret(TEXT) != Secret(TEXT + "!")
    assert Secret(TEXT) != TEXT
    assert len({Secret(TEXT), Secret(TEXT)}) == 1


def test_an_empty_secret_is_false() -> None:
    assert not Secret("")
    assert Secret("x")


def test_a_generated_secret_is_thirty_letters_and_digits_and_never_the_same() -> None:
    secrets = {generate_secret().reveal() for _ in range(200)}
    assert len(secrets) == 200
    assert all(len(secret) == GENERATED_LENGTH == 30 and secret.isascii() and secret.isalnum() for secret in secrets)
