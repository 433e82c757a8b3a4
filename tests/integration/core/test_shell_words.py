"""A printed name is the name again when a shell reads it."""

import subprocess

import pytest
from tests.support.odd_names import NAMES

from turku.core.cli import shell_words


@pytest.mark.parametrize("is_utf8", [True, False])
def test_a_shell_reads_the_name_again(is_utf8: bool) -> None:
    words = [shell_words.word(name, is_utf8=is_utf8) for name in NAMES]
    for word in words:
        assert word.isprintable()
        assert is_utf8 or word.isascii()
    script = f"printf '%s\\0' {' '.join(words)}"
    read = subprocess.run(["bash", "-c", script], capture_output=True, check=True).stdout
    assert read.split(b"\0")[:-1] == list(NAMES)
