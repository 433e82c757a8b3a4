"""The output of the demo."""

import io
from pathlib import Path

from rich.console import Console

from turku.demo.narrator import Narrator


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
