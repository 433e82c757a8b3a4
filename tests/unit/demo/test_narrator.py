"""How the demo speaks."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from turku.demo.narrator import Narrator, size


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1024, "1.0 KiB"), (1_500_000, "1.4 MiB"), (5 * 1024**3, "5.0 GiB")],
)
def test_sizes_are_for_people(size_bytes: int, text: str) -> None:
    assert size(size_bytes) == text


def test_without_a_terminal_there_are_no_colours_and_no_broken_lines() -> None:
    stream = io.StringIO()
    narrator = Narrator(Console(file=stream, width=40, highlight=False))
    long_path = Path("/a" * 60)
    with narrator.step("Do something") as say:
        say(f"it lies in {long_path}")
        say("a name with a\nline break and \x1b[31mcolour")
    text = stream.getvalue()
    assert text.startswith("1. Do something\n")
    assert f"   it lies in {long_path}\n" in text
    assert "\x1b" not in text
    assert len(text.splitlines()) == 4
