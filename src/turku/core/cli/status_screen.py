"""The screen of each program's ``status``: what this host is, what it did last, what is next, and what is wrong."""

import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from typing import Any

from turku import __version__
from turku.core.cli.listing import Say
from turku.core.cli.output import json_text
from turku.core.cli.systemd_timers import Timer
from turku.core.log import one_line
from turku.core.units import rough_duration

EXIT_PROBLEMS = 1
EXIT_CODES = {0: "Nothing is wrong.", EXIT_PROBLEMS: "There is a problem. The last section names it."}
WIDEST_SCREEN = 80
MOST_ROWS = 8
"""Rows of a section that are shown. --json has all of them."""
_WIDEST_NAME = 22
_INDENT = "  "


@dataclass(frozen=True)
class StatusRow:
    """A line of the screen: the name of a fact and the fact. A fact may take several lines."""

    name: str
    text: str


@dataclass(frozen=True)
class StatusScreen:
    """The content of the screen. ``problems`` are sentences that say what to do as well."""

    program: str
    subject: str
    """The name that this host has in the fleet."""
    identity: Sequence[StatusRow]
    last: Sequence[StatusRow]
    next: Sequence[StatusRow]
    problems: Sequence[str]
    facts: Mapping[str, Any] = field(default_factory=dict)
    """The same facts for programs, below keys of their own."""


def show(screen: StatusScreen, say: Say, *, as_json: bool = False) -> int:
    """Print the screen, or a JSON object. Return the exit code, which says whether there is a problem."""
    if as_json:
        head = {"program": screen.program, "version": __version__, "subject": screen.subject}
        say(json_text({**head, "problems": list(screen.problems), **screen.facts}, indent=2))
    else:
        for line in lines(screen, columns=_columns()):
            say(line)
    return EXIT_PROBLEMS if screen.problems else 0


def _columns() -> int:
    return min(shutil.get_terminal_size().columns, WIDEST_SCREEN) if sys.stdout.isatty() else WIDEST_SCREEN


def lines(screen: StatusScreen, *, columns: int = WIDEST_SCREEN) -> Iterator[str]:
    """Yield the lines of the screen, none of them wider than ``columns`` where its words allow that."""
    yield from _wrapped(f"{screen.program} {__version__}: {one_line(screen.subject)}", "", "", columns)
    sections = (("", screen.identity), ("Last", screen.last), ("Next", screen.next))
    longest = max((len(one_line(row.name)) for _title, rows in sections for row in rows), default=0)
    width = min(longest, _WIDEST_NAME)
    for title, rows in sections:
        if title:
            yield ""
            yield title
        for row in rows[:MOST_ROWS]:
            head = f"{_INDENT}{one_line(row.name):{width}}{_INDENT}"
            yield from _wrapped(one_line(row.text), head, " " * (width + 2 * len(_INDENT)), columns)
        yield from _more(len(rows))
        if not rows:
            yield f"{_INDENT}nothing"
    yield ""
    if not screen.problems:
        yield "No problem found."
        return
    yield "Problems"
    for problem in screen.problems[:MOST_ROWS]:
        yield from _wrapped(one_line(problem), f"{_INDENT}- ", f"{_INDENT}  ", columns)
    yield from _more(len(screen.problems))


def _more(count: int) -> Iterator[str]:
    if count > MOST_ROWS:
        yield f"{_INDENT}... and {count - MOST_ROWS} more (--json has all)"


def _wrapped(text: str, first: str, others: str, columns: int) -> Iterator[str]:
    wrapped = textwrap.wrap(
        text, columns, initial_indent=first, subsequent_indent=others, break_long_words=False, break_on_hyphens=False
    )
    yield from (line.rstrip() for line in wrapped or (first,))


def moment(when: datetime, zone: tzinfo, *, now: datetime) -> str:
    """Return a moment with its distance from now: ``3 h ago (Mon 18:05)``, ``in 4 min (21:25)``."""
    distance = rough_duration(abs(now - when))
    local, today = when.astimezone(zone), now.astimezone(zone)
    if local.date() == today.date():
        clock = f"{local:%H:%M}"
    elif abs((local.date() - today.date()).days) < 7:
        clock = f"{local:%a %H:%M}"
    else:
        clock = f"{local:%Y-%m-%d %H:%M}"
    return f"in {distance} ({clock})" if when > now else f"{distance} ago ({clock})"


def timer_rows(timers: Sequence[Timer], zone: tzinfo, *, now: datetime) -> list[StatusRow]:
    """Return a row for each timer that is installed, with its next run."""
    return [
        StatusRow(timer.name, _next_run(timer, zone, now)) for timer in timers if timer.is_installed or timer.is_active
    ]


def _next_run(timer: Timer, zone: tzinfo, now: datetime) -> str:
    if not timer.is_active:
        return "its timer is not running"
    if timer.is_service_running:
        return "runs now"
    return "not known yet" if timer.next_at is None else moment(timer.next_at, zone, now=now)


def timer_problems(timers: Sequence[Timer]) -> list[str]:
    """Return a sentence for each timer that does not run, and for each whose last run failed."""
    found = []
    for timer in timers:
        if timer.is_installed and not timer.is_active:
            found.append(f"{timer.name}.timer does not run: systemctl enable --now {timer.name}.timer")
        if timer.has_service_failed:
            found.append(f"the last run of {timer.name}.service failed: journalctl -u {timer.name}.service")
    return found


def timer_facts(timers: Sequence[Timer]) -> list[dict[str, Any]]:
    """Return the timers for ``StatusScreen.facts``."""
    return [
        {
            "name": timer.name,
            "is_installed": timer.is_installed,
            "is_active": timer.is_active,
            "next_at": timer.next_at,
            "last_at": timer.last_at,
            "has_failed": timer.has_service_failed,
        }
        for timer in timers
    ]
