"""Listings in a terminal: tables for people, lines with tabs for pipes, and how sizes, times and modes are written."""

from __future__ import annotations

import functools
import itertools
import stat
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from typing import Any

from turku.core.log import one_line
from turku.core.output import json_text, unguarded

_DRAWN_ROWS = 500
"""Above it columns are as wide as they come: drawing tables takes a millisecond for a few rows."""
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
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


def show(headings: Sequence[str], rows: Iterable[Sequence[str]], say: Say, *, right: Sequence[str] = ()) -> None:
    """Print the rows; ``right`` are the headings of columns of figures. Control characters are escaped."""
    clean = ([one_line(cell) for cell in row] for row in rows)
    if not sys.stdout.isatty():
        for row in clean:
            say("\t".join(row))
        return
    first = list(itertools.islice(clean, _DRAWN_ROWS + 1))
    if len(first) <= _DRAWN_ROWS:
        _draw(headings, first, right)
        return
    widths = [max(map(len, column)) for column in zip(headings, *first, strict=True)]
    for row in itertools.chain([list(headings)], first, clean):
        cells = (
            cell.rjust(width) if heading in right else cell.ljust(width)
            for heading, cell, width in zip(headings, row, widths, strict=True)
        )
        say("  ".join(cells).rstrip())


def array(rows: Iterable[Mapping[str, Any]], say: Say) -> None:
    """Print a JSON array, each element on a line of its own, as it comes."""
    separator = "["
    for row in rows:
        say(separator + json_text(row))
        separator = ","
    say("[]" if separator == "[" else "]")


def _draw(headings: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, justify="right" if heading in right else "left", no_wrap=True, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    # Every cell is escaped already.
    Console(file=unguarded(sys.stdout)).print(table)


def size(size_bytes: int) -> str:
    """``512 B``, ``1.5 KiB``, ``20 GiB``."""
    value, unit = float(size_bytes), _UNITS[0]
    for unit in _UNITS:
        if value < 1000 or unit == _UNITS[-1]:
            break
        value /= 1024
    return f"{value:.1f} {unit}" if unit != _UNITS[0] and value < 100 else f"{value:.0f} {unit}"


def moment(mtime_ns: int, zone: tzinfo) -> str:
    """A time of the file system as a clock in ``zone`` shows it; the number where no calendar has it."""
    return _moment(mtime_ns // 10**9, zone) or f"{mtime_ns} ns"


@functools.lru_cache(maxsize=4096)
def _moment(unix_seconds: int, zone: tzinfo) -> str:
    try:
        return f"{datetime.fromtimestamp(unix_seconds, UTC).astimezone(zone):%Y-%m-%d %H:%M:%S}"
    except (ValueError, OverflowError, OSError):
        return ""


def mode(kind: str, permissions: int) -> str:
    """``-rw-r--r--``, as ls has it; ``kind`` is one of the catalog's."""
    return stat.filemode(_FORMATS.get(kind, 0) | permissions)
