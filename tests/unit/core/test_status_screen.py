"""The screen of each program's status: its four questions, its width, its exit code, and its JSON."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from turku.core.cli import status_screen, systemd_timers
from turku.core.cli.status_screen import MOST_ROWS, WIDEST_SCREEN, StatusRow, StatusScreen
from turku.core.cli.systemd_timers import Timer

NOW = datetime(2026, 11, 30, 21, 20, tzinfo=UTC)
SCREEN = StatusScreen(
    "turku-storage",
    "backup1",
    identity=(StatusRow("coordinator", "https://turku.example.net, answered 2 min ago"),),
    last=(StatusRow("backups", "web/etc " * 20),),
    next=(StatusRow("turku-storage-gc", "in 5 min (21:25)"),),
    problems=(),
    facts={"volumes": [{"name": "data"}]},
)


def shown(screen: StatusScreen) -> list[str]:
    return list(status_screen.lines(screen))


def test_a_screen_answers_four_questions_within_80_columns() -> None:
    found = shown(SCREEN)
    assert found[1:3] == ["  coordinator" + " " * 7 + "https://turku.example.net, answered 2 min ago", ""]
    assert [line for line in found if line and line[0] != " "][1:] == ["Last", "Next", "No problem found."]
    assert max(map(len, found)) <= WIDEST_SCREEN


def test_long_sections_are_cut_and_say_so() -> None:
    rows = [StatusRow(f"machine{number}", "x") for number in range(MOST_ROWS + 3)]
    problems = [f"problem {number}" for number in range(MOST_ROWS + 1)]
    text = "\n".join(shown(replace(SCREEN, identity=rows, problems=problems)))
    assert "... and 3 more (--json has all)" in text
    assert "... and 1 more (--json has all)" in text


def test_names_from_elsewhere_add_no_line() -> None:
    row = StatusRow("a\nPROBLEM", "b\n\x1b[31mc")
    assert len(shown(replace(SCREEN, last=[row]))) == len(shown(replace(SCREEN, last=[StatusRow("a", "b")])))


@pytest.mark.parametrize(("problems", "code"), [((), 0), (("volume data is full",), 1)])
def test_the_exit_code_says_whether_there_is_a_problem(problems: tuple[str, ...], code: int) -> None:
    said: list[str] = []
    screen = replace(SCREEN, problems=problems)
    assert status_screen.show(screen, said.append) == code
    assert said == shown(screen)
    said.clear()
    assert status_screen.show(screen, said.append, as_json=True) == code
    (text,) = said
    found = json.loads(text)
    assert (found["problems"], found["volumes"], found["program"]) == (
        list(problems),
        [{"name": "data"}],
        screen.program,
    )


@pytest.mark.parametrize(
    ("distance", "text"),
    [
        (timedelta(minutes=5), "in 5 min (21:25)"),
        (timedelta(seconds=-10), "a moment ago (21:19)"),
        (timedelta(hours=-30), "30 h ago (Sun 15:20)"),
        (timedelta(days=-30), "30 d ago (2026-10-31 21:20)"),
    ],
)
def test_a_moment_is_shown_with_its_distance(distance: timedelta, text: str) -> None:
    assert status_screen.moment(NOW + distance, UTC, now=NOW) == text


def test_timers_are_rows_and_their_mistakes_problems() -> None:
    timers = [
        Timer("turku-a", is_installed=True, is_active=True, next_at=NOW + timedelta(minutes=5)),
        Timer("turku-b", is_installed=True, is_active=False),
        Timer("turku-c", is_installed=True, is_active=True, is_service_running=True),
        Timer("turku-d", is_installed=True, is_active=True, has_service_failed=True),
        Timer("turku-e"),
    ]
    rows = {row.name: row.text for row in status_screen.timer_rows(timers, UTC, now=NOW)}
    assert rows == {
        "turku-a": "in 5 min (21:25)",
        "turku-b": "its timer is not running",
        "turku-c": "runs now",
        "turku-d": "not known yet",
    }
    first, second = status_screen.timer_problems(timers)
    assert "systemctl enable --now turku-b.timer" in first
    assert "journalctl -u turku-d.service" in second


SHOWN = """\
Id=turku-storage-gc.timer
LoadState=loaded
ActiveState=active

Id=turku-storage-gc.service
LoadState=loaded
ActiveState=failed

Id=turku-storage-drill.timer
LoadState=not-found
ActiveState=inactive

Id=turku-storage-drill.service
LoadState=not-found
ActiveState=inactive
"""


@pytest.mark.parametrize(
    ("listed", "next_at"),
    [
        ('[{"next":1796073937866766,"left":1,"last":0,"unit":"turku-storage-gc.timer"}]', 1796073937),
        ('[{"next":18446744073709551615,"last":null,"unit":"turku-storage-gc.timer"}]', None),
        ("[]", None),
    ],
)
def test_what_systemd_says_of_its_timers_is_read(listed: str, next_at: int | None) -> None:
    import msgspec

    names = ("turku-storage-gc", "turku-storage-drill")
    elements = msgspec.json.decode(listed, type=list[systemd_timers._ListedTimer])
    gc, drill = systemd_timers._timers(names, SHOWN, elements)
    assert (gc.is_installed, gc.is_active, gc.has_service_failed, gc.last_at) == (True, True, True, None)
    assert (gc.next_at and int(gc.next_at.timestamp())) == next_at
    assert drill == Timer("turku-storage-drill")
