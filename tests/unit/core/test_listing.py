"""Listings as people and pipes get them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from zoneinfo import ZoneInfo

import pytest

from turku.core import listing


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (1024**2 * 250, "250 MiB"),
        (1024**6, "1024 PiB"),
    ],
)
def test_sizes(size_bytes: int, text: str) -> None:
    assert listing.size(size_bytes) == text


def test_modes_and_times() -> None:
    assert listing.mode("file", 0o4755) == "-rwsr-xr-x"
    assert listing.mode("directory", 0o1777) == "drwxrwxrwt"
    zone = ZoneInfo("Europe/Helsinki")
    assert listing.moment(1_700_000_000 * 10**9 + 5, zone) == "2023-11-15 00:13:20"
    assert listing.moment(2**63 - 1, zone) == "2262-04-12 02:47:16"
    assert listing.moment(10**30, zone) == f"{10**30} ns"


def told(rows: Sequence[Sequence[str]]) -> list[str]:
    lines: list[str] = []
    listing.show(("name", "size"), rows, lines.append, right=("size",))
    return lines


def test_in_a_pipe_columns_are_separated_by_tabs() -> None:
    assert told([("a", "1"), ("new\nline\x1b[31m", "2")]) == ["a\t1", "new\\nline\\x1b[31m\t2"]


def test_in_a_terminal_long_listings_are_in_columns_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    lines = told([(f"name {number}", f"{number}") for number in range(1000)])
    assert len(lines) == 1001
    assert lines[0].split() == ["name", "size"]
    assert lines[10] == "name 9       9"


def test_in_a_terminal_short_listings_are_tables(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert told([("[bold]a[/bold]", "1")]) == []
    plain = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert plain.split() == ["name", "size", "[bold]a[/bold]", "1"]
