"""The tables of history: at any width of a terminal no name, figure, unit or time in them is cut."""

import re
from collections.abc import Callable
from datetime import UTC
from typing import Any

import pytest
from rich.cells import cell_len

from turku.browse import output
from turku.core.cli.listing import Say
from turku.protocol.restore_messages import DifferenceRow, FileRow, SnapshotRow, wire_path

SNAPSHOT = "home_20261129-181530_0a1b"
NAMES = ("letters/to the bank.odt", "\u6771\u4eac/\u5199\u771f.jpg", "cafe\u0301.txt", "d/" * 60 + "end")
FILES = [
    FileRow(
        wire_path(name.encode()),
        "file",
        size_bytes=123 * 1024**3,
        mode=0o640,
        uid=65534,
        gid=65534,
        modified=(1_790_000_000, 0),
        checksum=bytes(range(16)),
        link_target=None,
        first=SNAPSHOT,
        last=SNAPSHOT,
    )
    for name in NAMES
]
FIGURES = ("123 GiB", "2026-09-21 14:13:20", "-rw-r-----", "65534:65534", bytes(range(16)).hex(), "1,234,567")


def files(say: Say) -> None:
    output.show("ls", FILES, say, zone=UTC, is_json=False)


def versions(say: Say) -> None:
    output.show("versions", FILES, say, zone=UTC, is_json=False)


def differences(say: Say) -> None:
    rows = [DifferenceRow(row.path, "changed", before=row, after=row) for row in FILES]
    output.show("diff", rows, say, zone=UTC, is_json=False)


def snapshots(say: Say) -> None:
    rows = [
        SnapshotRow(name, f"{name}_20261129-181530_0a1b", "2026-11-29T18:15:30+02:00", 1234567, 123 * 1024**3)
        for name in ("home", "\u6771\u4eac")
    ]
    output.show_snapshots((("primary", row) for row in rows), say, owner="storage", is_json=False)


@pytest.mark.parametrize("columns", [60, 80, 100, 200])
@pytest.mark.parametrize(
    ("table", "names"),
    [
        (files, NAMES),
        (versions, (*NAMES, SNAPSHOT)),
        (differences, NAMES),
        (snapshots, ("home_20261129-181530_0a1b", "\u6771\u4eac_20261129-181530_0a1b")),
    ],
)
def test_nothing_is_cut(
    table: Callable[[Say], Any],
    names: tuple[str, ...],
    columns: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    table(lambda line: pytest.fail(f"{line} is shown apart"))
    text = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    lines = text.splitlines()
    assert "\u2026" not in text
    for name in names:
        assert any(name in line for line in lines), name
    assert all(cell_len(line) <= max(columns, *(cell_len(name) + 2 for name in names)) for line in lines)
    # A cell that is there is there as a whole.
    for cell in re.split(r" {2,}|\n", text):
        assert all(cell == figure or not figure.startswith(cell) for figure in FIGURES if len(cell) > 2), cell


@pytest.mark.parametrize(("table", "columns"), [(files, 100), (versions, 240), (differences, 80), (snapshots, 110)])
def test_no_column_that_fits_is_left_out(
    table: Callable[[Say], Any], columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    table(print)
    assert "no room" not in capsys.readouterr().out
