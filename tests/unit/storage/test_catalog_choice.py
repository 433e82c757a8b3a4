"""The snapshot and the names that a person means."""

from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from turku.errors import InvalidValue, NotInHistory, UsageError
from turku.policy.timing import clock_agreement
from turku.storage.catalog import choose
from turku.storage.catalog.patterns import matcher

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Snapshot:
    name: str
    moment: datetime | None

    def is_date_in_doubt(self, now: datetime) -> bool:
        return clock_agreement.is_ahead(self.moment, now=now)


SNAPSHOTS = [
    Snapshot("renamed by hand", None),
    Snapshot("first", datetime(2026, 11, 1, 12, tzinfo=UTC)),
    Snapshot("second", datetime(2026, 11, 20, 12, tzinfo=UTC)),
    Snapshot("third", datetime(2026, 11, 24, 2, tzinfo=UTC)),
]


def chosen(name: str | None = None, at: str | None = None) -> str:
    return choose(SNAPSHOTS, name=name, at=at, now=NOW, zone=UTC)


def test_the_latest_unless_something_is_said() -> None:
    assert chosen() == chosen("latest") == "third"


def test_by_name() -> None:
    assert chosen("renamed by hand") == "renamed by hand"
    with pytest.raises(NotInHistory, match="no snapshot fourth") as refused:
        chosen("fourth")
    assert refused.value.hint == "'snapshots' shows which there are; the newest is third"


def test_by_a_part_of_the_name_that_no_other_has() -> None:
    assert chosen("by hand") == "renamed by hand"
    assert chosen("sec") == "second"
    with pytest.raises(NotInHistory, match="2 snapshots fit ir: first, third"):
        chosen("ir")
    with pytest.raises(NotInHistory, match="7 snapshots fit a: a0, a1, a2, a3, a4 and 2 more"):
        choose([Snapshot(f"a{number}", NOW) for number in range(7)], name="a", now=NOW, zone=UTC)


@pytest.mark.parametrize(
    ("at", "name"),
    [("2026-11-20 12:00", "second"), ("2026-11-20 11:59", "first"), ("yesterday", "second"), ("3 weeks ago", "first")],
)
def test_the_newest_that_was_made_until_then(at: str, name: str) -> None:
    assert chosen(at=at) == name


def test_a_time_before_all_of_them_names_the_oldest() -> None:
    with pytest.raises(NotInHistory, match="2026-10-01") as refused:
        chosen(at="2026-10-01")
    assert "renamed by hand" in refused.value.hint


def test_name_and_time_at_once_are_refused() -> None:
    with pytest.raises(UsageError):
        chosen("first", "yesterday")


def test_without_any_snapshot_and_without_sense() -> None:
    with pytest.raises(NotInHistory):
        choose([], now=NOW, zone=UTC)
    with pytest.raises(InvalidValue):
        chosen(at="soon")


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        (b"pass", b"etc/passwd", True),
        (b"etc", b"etc/passwd", False),
        (b"etc/pass", b"etc/passwd", True),
        (b"*.odt", b"home/a.odt", True),
        (b"*.odt", b"home/a.odt.bak", False),
        (b"home/*.odt", b"home/deep/a.odt", True),
        (b"?", b"x/\xff", True),
        (b"[ab]", b"b", True),
        (b"new\nline", b"a new\nline", True),
        (b"*", b"new\nline", True),
        (b".", b"ab", False),
        (b"PASS", b"passwd", False),
    ],
)
def test_patterns(pattern: bytes, path: bytes, matches: bool) -> None:
    directory, _slash, name = path.rpartition(b"/")
    assert matcher(pattern)(directory, name) is matches


def test_case_is_ignored_when_that_is_asked_for() -> None:
    assert matcher(b"PASS", ignore_case=True)(b"etc", b"passwd")
    assert matcher(b"ETC/*WD", ignore_case=True)(b"etc", b"passwd")


@pytest.mark.parametrize("pattern", [b"", b"x" * 1001])
def test_a_pattern_without_sense_is_refused(pattern: bytes) -> None:
    with pytest.raises(UsageError):
        matcher(pattern)


def test_one_dated_in_the_future_is_not_the_latest() -> None:
    of_a_wrong_clock = Snapshot("of a wrong clock", datetime(2036, 1, 1, tzinfo=UTC))
    assert choose([*SNAPSHOTS, of_a_wrong_clock], now=NOW, zone=UTC) == "third"
    assert choose([*SNAPSHOTS, of_a_wrong_clock], name="latest", now=NOW, zone=UTC) == "third"
    assert choose([*SNAPSHOTS, of_a_wrong_clock], name="of a wrong clock", now=NOW, zone=UTC) == "of a wrong clock"
    assert choose([of_a_wrong_clock], now=NOW, zone=UTC) == "of a wrong clock"


def test_by_time_it_is_the_last_one_made_until_then_whatever_their_order() -> None:
    assert choose([SNAPSHOTS[3], *SNAPSHOTS[:3]], at="now", now=NOW, zone=UTC) == "third"
