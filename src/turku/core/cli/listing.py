"""Listings: tables for terminals, lines with tabs for pipes, JSON arrays, and the notation of times and modes."""

import functools
import itertools
import shutil
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from typing import Any

from turku.core.cli.output import json_text, unguarded
from turku.core.log import one_line

_DRAWN_ROWS = 500
"""The number of rows that decide the widths of columns. Later rows are printed as they come."""
_BETWEEN = "  "
_FORMATS = {
    "file": stat.S_IFREG,
    "directory": stat.S_IFDIR,
    "link": stat.S_IFLNK,
    "fifo": stat.S_IFIFO,
    "socket": stat.S_IFSOCK,
    "block": stat.S_IFBLK,
    "character": stat.S_IFCHR,
}

Say = Callable[[str], None]


def show(
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    say: Say,
    *,
    right: Sequence[str] = (),
    drop: Sequence[str] = (),
    notes: Sequence[str] = (),
    known: Sequence[str] = (),
    empty: str = "nothing found",
) -> None:
    """Print the rows. ``right`` names the columns of figures. Control characters are escaped.

    Each of the ``notes`` that is not empty is printed below its row, indented.

    No cell is ever cut. On a narrow terminal the columns in ``drop`` are omitted, the first one first, and a last line
    names them. Where that is not enough, a row takes several lines. A terminal does not show the columns in ``known``,
    to which an option of the command gives one value. Without a row it shows the sentence ``empty``.
    """
    clean = ([one_line(cell) for cell in row] for row in rows)
    if not sys.stdout.isatty():
        for row, note in itertools.zip_longest(clean, notes, fillvalue=""):
            say("\t".join(row))
            if note:
                say(f"  {one_line(note)}")
        return
    first = list(itertools.islice(clean, _DRAWN_ROWS + 1))
    if not first:
        print(empty, file=sys.stderr)  # noqa: T201
        return
    table = _Table(headings, first, right, drop, known, room=shutil.get_terminal_size().columns)
    if len(first) <= _DRAWN_ROWS:
        say = _write_line
        for line in table.lines(headings):
            unguarded(sys.stdout).write(f"\x1b[1m{line}\x1b[0m\n")
    else:
        for line in table.lines(headings):
            say(line)
    for row, note in itertools.zip_longest(itertools.chain(first, clean), notes, fillvalue=""):
        for line in table.lines(row):
            say(line)
        if note:
            say(f"  {one_line(note)}")
    if table.omitted:
        say(f"(no room for: {', '.join(table.omitted)}; --json has all)")


def _write_line(line: str) -> None:
    sys.stdout.write(f"{line}\n")


class _Table:
    """The columns that fit into a terminal, and their widths."""

    def __init__(
        self,
        headings: Sequence[str],
        rows: Sequence[Sequence[str]],
        right: Sequence[str],
        drop: Sequence[str],
        known: Sequence[str],
        *,
        room: int,
    ) -> None:
        from rich.cells import cell_len

        self._width_of = cell_len
        self._room = room
        self._right = [heading in right for heading in headings]
        self._widths = [max(map(cell_len, column)) for column in zip(headings, *rows, strict=True)]
        shown = [column for column, heading in enumerate(headings) if heading not in known]
        self.omitted: list[str] = []
        for heading in drop:
            if heading in known:
                continue
            if self._needed(shown) <= room:
                break
            shown.remove(headings.index(heading))
            self.omitted.append(heading)
        self._shown = shown

    def _needed(self, shown: Sequence[int]) -> int:
        widths = [self._widths[column] for column in shown]
        if not self._right[shown[-1]]:
            # A long path in the last column goes to a line of its own, so that the other columns stay.
            widths[-1] = min(widths[-1], self._room // 3)
        return sum(widths) + len(_BETWEEN) * (len(widths) - 1)

    def lines(self, row: Sequence[str]) -> Iterator[str]:
        """Yield the lines of a row: one, or several where the row is too long for one."""
        line = ""
        for position, column in enumerate(self._shown):
            blanks = " " * (self._widths[column] - self._width_of(row[column]))
            cell = blanks + row[column] if self._right[column] else row[column] + blanks
            longer = f"{line}{_BETWEEN}{cell}" if position else cell
            if line.strip() and self._width_of(longer.rstrip()) > self._room:
                yield line.rstrip()
                longer = f"{_BETWEEN}{row[column] if self._right[column] else cell}"
            line = longer
        yield line.rstrip()


def array(rows: Iterable[Mapping[str, Any]], say: Say) -> None:
    """Print a JSON array with one element per line, as the elements come."""
    separator = "["
    for row in rows:
        say(separator + json_text(row))
        separator = ","
    say("[]" if separator == "[" else "]")


def moment(mtime_ns: int, zone: tzinfo) -> str:
    """Return a time of the file system as a clock in ``zone`` shows it, or the number where no calendar has it."""
    return _moment(mtime_ns // 10**9, zone) or f"{mtime_ns} ns"


@functools.lru_cache(maxsize=4096)
def _moment(unix_seconds: int, zone: tzinfo) -> str:
    try:
        return f"{datetime.fromtimestamp(unix_seconds, UTC).astimezone(zone):%Y-%m-%d %H:%M:%S}"
    except (ValueError, OverflowError, OSError):
        return ""


def iso_moment(text: str, *, has_zone: bool = False) -> str:
    """Return a time in ISO form as ``moment`` shows times, in its own zone, or the text if it is no time."""
    try:
        shown = datetime.fromisoformat(text).isoformat(" ", "seconds")
    except ValueError:
        return text
    return shown if has_zone else shown[:19]


def mode(kind: str, permissions: int) -> str:
    """Return kind and permissions as ls shows them, such as ``-rw-r--r--``. ``kind`` is a key of ``_FORMATS``."""
    return stat.filemode(_FORMATS.get(kind, 0) | permissions)
