"""Bytes that were cut may end in the middle of a character: whoever makes text of them must expect that."""

import ast
from pathlib import Path

import pytest

import turku
from turku.core import durable
from turku.core.log import one_line

ROOT = Path(turku.__file__).parent


def strictly_decoded_slices(path: Path) -> list[int]:
    """The lines on which a part of some bytes is decoded without saying what is to become of half a character."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "decode"
        and isinstance(node.func.value, ast.Subscript)
        and isinstance(node.func.value.slice, ast.Slice)
        and len(node.args) < 2
        and not any(keyword.arg == "errors" for keyword in node.keywords)
    ]


def test_no_part_of_bytes_is_decoded_as_if_it_were_whole() -> None:
    found = {str(path.relative_to(ROOT)): strictly_decoded_slices(path) for path in ROOT.rglob("*.py")}
    # sshd's own line, from its beginning to its end.
    assert {path for path, lines in found.items() if lines} <= {"storage/registration/admitted_keys.py"}


@pytest.mark.parametrize("character", ["\u00e9", "\u20ac", "\U0001f4be"])
def test_a_line_for_the_log_may_begin_and_end_within_a_character(character: str) -> None:
    whole = (character * 3).encode()
    for start in range(len(whole)):
        for end in range(start, len(whole) + 1):
            one_line(whole[start:end]).encode()


@pytest.mark.parametrize("character", ["\u00e9", "\u20ac", "\U0001f4be"])
def test_a_file_of_a_long_name_is_written_through_a_temporary_one(tmp_path: Path, character: str) -> None:
    for shift in range(4):
        path = tmp_path / ("x" * shift + character * (240 // len(character.encode())))
        durable.write_text(path, "kept")
        assert path.read_text() == "kept"
