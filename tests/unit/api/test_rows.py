"""The names and values of one object, as people and programs read them."""

import sys

import pytest

from turku.api.commands.fleet import rows

FIELDS = (("Machine", "web-1"), ("Comment", ""), ("Next step", "Look at the machine, " * 8), ("Formerly", "one\ntwo"))


def shown() -> list[str]:
    lines: list[str] = []
    rows.show_fields(FIELDS, lines.append)
    return lines


def test_a_terminal_gets_long_values_in_several_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    lines = shown()
    assert max(map(len, lines)) <= 80
    assert lines[0] == "Machine:   web-1"
    assert lines[1].startswith("Next step: Look at the machine, Look")
    assert lines[2].startswith("           ")
    assert lines[-2:] == ["Formerly:  one", "           two"]


def test_a_pipe_gets_each_value_in_one_line() -> None:
    assert len(shown()) == 4
