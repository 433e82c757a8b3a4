"""The choice to compress a transfer."""

import re
from typing import Any

import pytest

from turku.errors import InvalidValue
from turku.policy.compression import COMPRESSED_FILES, Compression, is_worth_it, parse

FAR = "203.0.113.9 50000 198.51.100.1 22"


@pytest.mark.parametrize(
    ("value", "choice"), [("auto", "auto"), ("on", "on"), ("off", "off"), (True, "on"), (False, "off")]
)
def test_choices(value: Any, choice: str) -> None:
    assert parse(value) == choice


@pytest.mark.parametrize("value", ["", "yes", "zlib", 1, None, [], "ON", "on\n"])
def test_anything_else_is_refused(value: Any) -> None:
    with pytest.raises(InvalidValue, match="auto, on, off"):
        parse(value)


@pytest.mark.parametrize("connection", ["", FAR, "127.0.0.1 1 127.0.0.1 22"])
@pytest.mark.parametrize("rate", [None, 1.0, 1e9])
def test_the_option_of_the_source_counts(connection: str, rate: float | None) -> None:
    assert is_worth_it(Compression.ON, ssh_connection=connection, bytes_per_second=rate)
    assert not is_worth_it(Compression.OFF, ssh_connection=connection, bytes_per_second=rate)


@pytest.mark.parametrize(
    ("connection", "rate", "is_it"),
    [
        (FAR, None, True),
        (FAR, 1e6, True),
        (FAR, 1e8, False),
        ("2001:db8::1 1 2001:db8::2 22", None, True),
        ("fe80::1%eth0 1 fe80::2%eth0 22", None, True),
        ("127.0.0.1 1 127.0.0.1 22", None, False),
        ("::1 1 ::1 22", 1e6, False),
        ("198.51.100.1 50000 198.51.100.1 22", 1e6, False),
        ("", None, False),
        ("nonsense", None, True),
        ("a 1 b 2", None, True),
    ],
)
def test_by_itself_it_is_what_helps(connection: str, rate: float | None, is_it: bool) -> None:
    assert is_worth_it(Compression.AUTO, ssh_connection=connection, bytes_per_second=rate) is is_it


def test_suffixes_are_words_of_their_own() -> None:
    patterns = COMPRESSED_FILES.split()
    assert len(set(patterns)) == len(patterns)
    assert all(re.fullmatch(r"\*\.[a-z0-9]+", pattern) for pattern in patterns)
