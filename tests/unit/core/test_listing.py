"""Listings as people and pipes get them."""

import re
from collections.abc import Sequence
from zoneinfo import ZoneInfo

import pytest
from rich.cells import cell_len

from turku.core.cli import listing


def test_modes_and_times() -> None:
    assert listing.mode("file", 0o4755) == "-rwsr-xr-x"
    assert listing.mode("directory", 0o1777) == "drwxrwxrwt"
    zone = ZoneInfo("Europe/Helsinki")
    assert listing.moment(1_700_000_000 * 10**9 + 5, zone) == "2023-11-15 00:13:20"
    assert listing.moment(2**63 - 1, zone) == "2262-04-12 02:47:16"
    assert listing.moment(10**30, zone) == f"{10**30} ns"


def printed(rows: Sequence[Sequence[str]]) -> list[str]:
    lines: list[str] = []
    listing.show(("name", "size"), rows, lines.append, right=("size",))
    return lines


def test_in_a_pipe_columns_are_separated_by_tabs() -> None:
    assert printed([("a", "1"), ("new\nline\x1b[31m", "2")]) == ["a\t1", "new\\nline\\x1b[31m\t2"]


def test_in_a_terminal_long_listings_are_in_columns_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    lines = printed([(f"name {number}", f"{number}") for number in range(1000)])
    assert len(lines) == 1001
    assert lines[0].split() == ["name", "size"]
    assert lines[10] == "name 9       9"


def test_in_a_terminal_short_listings_are_tables(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert printed([("[bold]a[/bold]", "1")]) == []
    plain = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert plain.split() == ["name", "size", "[bold]a[/bold]", "1"]


def test_without_rows_a_terminal_gets_a_sentence_and_a_pipe_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert printed([]) == []
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert printed([]) == []
    listing.show(("name", "size"), [], print, empty="no differences")
    assert capsys.readouterr() == ("", "nothing found\nno differences\n")


def test_a_terminal_does_not_show_columns_that_are_known(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    listing.show(HEADINGS, ROWS[:1], print, known=("machine",))
    assert capsys.readouterr().out.startswith("web-0\t")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    listing.show(HEADINGS, ROWS[:1], print, drop=("machine", "made"), known=("machine",))
    assert "machine" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "shown", "with_zone"),
    [
        ("2026-11-30T12:02:34.582764+00:00", "2026-11-30 12:02:34", "2026-11-30 12:02:34+00:00"),
        ("some day", "some day", "some day"),
        ("", "", ""),
    ],
)
def test_a_time_in_iso_form_is_shown_without_a_fraction(text: str, shown: str, with_zone: str) -> None:
    assert listing.iso_moment(text) == shown
    assert listing.iso_moment(text, has_zone=True) == with_zone


SNAPSHOT = "home-of-everybody_20261129-181530_0a1b"
MOMENT = "2026-11-29T18:15:30+02:00"
ROWS = [
    ("web-0", SNAPSHOT, MOMENT, "1,234,567", "123 GiB", "held, quarantined"),
    ("\u6771\u4eac-0", f"{SNAPSHOT}\u5099\u4efd", MOMENT, "3", "1.5 KiB", ""),
]
HEADINGS = ("machine", "snapshot", "made", "files", "size", "marks")


def drawn(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    rows: Sequence[Sequence[str]],
    *,
    columns: int,
    headings: Sequence[str] = HEADINGS,
    drop: Sequence[str] = ("made", "files", "size"),
) -> list[str]:
    """The lines of the table in a terminal of that width."""
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    lines: list[str] = []
    listing.show(headings, rows, lines.append, right=("files", "size"), drop=drop)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    return plain.splitlines() + lines


@pytest.mark.parametrize("count", [2, 600])
@pytest.mark.parametrize("columns", [20, 60, 80, 100, 200])
def test_nothing_is_cut_and_what_there_is_no_room_for_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], columns: int, count: int
) -> None:
    lines = drawn(monkeypatch, capsys, ROWS * (count // 2), columns=columns)
    text = "\n".join(lines)
    left_out = lines[-1] if lines[-1].startswith("(no room for: ") else ""
    for number, heading in enumerate(HEADINGS):
        is_left_out = heading in left_out.removeprefix("(no room for: ").split(";")[0].split(", ")
        for row in ROWS:
            assert (row[number] in text) is (not is_left_out) or row[number] in ("", "3")
    assert text.count(SNAPSHOT) == count
    assert "\u2026" not in text
    widest = cell_len(f"{SNAPSHOT}\u5099\u4efd") + 2
    assert all(cell_len(line) <= max(columns, widest, len(left_out)) for line in lines)
    expected = {200: "", 100: "made", 80: "made, files", 60: "made, files, size", 20: "made, files, size"}
    assert left_out == (f"(no room for: {expected[columns]}; --json has all)" if expected[columns] else "")


def test_columns_stand_below_each_other_with_wide_characters(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    heading, first, second = drawn(monkeypatch, capsys, ROWS, columns=200)
    at = heading.index("made")
    assert cell_len(first[: first.index(MOMENT)]) == at
    assert cell_len(second[: second.index(MOMENT)]) == at
    ends = [cell_len(line[: line.index(unit) + 3]) for line, unit in ((first, "GiB"), (second, "KiB"))]
    assert ends[0] == ends[1] == heading.index("size") + len("size")


def test_a_long_path_goes_to_a_line_of_its_own_and_drives_no_column_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    long = "d/" * 100 + "file"
    rows = [("-rw-r--r--", "12 KiB", "short"), ("-rw-r--r--", "1 B", long)]
    lines = drawn(monkeypatch, capsys, rows, columns=60, headings=("mode", "size", "path"), drop=("mode", "size"))
    assert lines == ["mode          size  path", "-rw-r--r--  12 KiB  short", "-rw-r--r--     1 B", f"  {long}"]


def test_a_pipe_gets_every_column_at_any_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    lines: list[str] = []
    listing.show(HEADINGS, ROWS, lines.append, right=("files", "size"), drop=("made", "files", "size"))
    assert lines == ["\t".join(row) for row in ROWS]
