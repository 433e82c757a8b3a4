"""A printed name is the name again when a shell reads it."""

import pytest

from turku.core.cli import shell_words


@pytest.mark.parametrize(
    ("name", "word"),
    [
        (b"plain/path.txt", "plain/path.txt"),
        ("café".encode(), "café"),
        (b"a b", "'a b'"),
        (b"it's", "'it'\\''s'"),
        (b"caf\xe9", "$'caf\\351'"),
        (b"two\nlines", "$'two\\nlines'"),
        (b"a\x011", "$'a\\0011'"),
        ("no\u00a0break".encode(), "$'no\\302\\240break'"),
        (b"", "''"),
    ],
)
def test_words_are_as_plain_as_they_can_be(name: bytes, word: str) -> None:
    assert shell_words.word(name, is_utf8=True) == word


def test_a_path_is_no_option() -> None:
    assert shell_words.path_word(b"-rf", is_utf8=True) == "./-rf"
    assert shell_words.path_word(b"- rf", is_utf8=True) == "'./- rf'"
    assert shell_words.word("café".encode(), is_utf8=False) == "$'caf\\303\\251'"
