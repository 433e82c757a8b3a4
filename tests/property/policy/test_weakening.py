"""A change that does not count as weakening keeps, and lets through, all that was kept and let through before."""

from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, event, given
from hypothesis import strategies as st

from turku.policy import filters, floor, retention
from turku.policy.declaration import weakening
from turku.policy.declaration.weakening import Declared, Weakening
from turku.policy.filters import FilterKind
from turku.policy.retention import EarliestOf, LastDays, LastSnapshots, Retention, Snapshot

numbers = st.integers(1, 40)
rules = st.one_of(
    st.builds(LastDays, numbers),
    st.builds(LastSnapshots, numbers),
    st.builds(EarliestOf, st.sampled_from(["day", "week", "month"]), numbers),
)
retentions = st.lists(rules, min_size=1, max_size=4).map(lambda chosen: Retention(tuple(chosen)))
moments = st.datetimes(datetime(2023, 1, 1), datetime(2026, 12, 31)).map(lambda moment: moment.replace(tzinfo=UTC))
zones = st.sampled_from([ZoneInfo(name) for name in ("UTC", "Europe/Helsinki", "America/New_York", "Pacific/Apia")])


@st.composite
def histories(draw: st.DrawFn, now: datetime) -> list[Snapshot]:
    ages = draw(st.lists(st.integers(0, 400 * 24 * 60), max_size=60, unique=True))
    return [Snapshot(f"s{age}", now - timedelta(minutes=age), draw(st.booleans())) for age in ages]


def kept_by_rules(history: list[Snapshot], kept_by: Retention, now: datetime, zone: ZoneInfo) -> set[str]:
    decisions = retention.decide(history, kept_by, now=now, zone=zone)
    return {each.snapshot.name for each in decisions if each.kept and each.reasons != (retention.NO_RULE_KEEPS_ANY,)}


@given(data=st.data(), old=retentions, new=retentions, now=moments, zone=zones)
def test_rules_that_keep_as_much_keep_a_superset(
    data: st.DataObject, old: Retention, new: Retention, now: datetime, zone: ZoneInfo
) -> None:
    if data.draw(st.booleans()):
        new = floor.widest(old, new)
    assume(floor.keeps_as_much(old, new))
    history = data.draw(histories(now))
    event(f"{len(history)} snapshots")
    assert kept_by_rules(history, old, now, zone) <= kept_by_rules(history, new, now, zone)


@given(data=st.data(), sets=st.lists(retentions, min_size=1, max_size=4), now=moments, zone=zones)
def test_the_widest_keeps_exactly_the_union(
    data: st.DataObject, sets: list[Retention], now: datetime, zone: ZoneInfo
) -> None:
    widest = floor.widest(*sets)
    assert len(widest.rules) <= 5
    assert retention.parse(widest.text) == widest
    history = data.draw(histories(now))
    union = set().union(*(kept_by_rules(history, each, now, zone) for each in sets))
    # The newest good one is kept by any rules, or by none.
    assert union == kept_by_rules(history, widest, now, zone)


@given(now=moments, zone=zones, unit=st.sampled_from(["day", "week", "month"]), number=numbers)
def test_the_days_that_cover_earliest_rules_do_so_on_every_day(
    now: datetime, zone: ZoneInfo, unit: str, number: int
) -> None:
    old = Retention((EarliestOf(unit, number),))
    days = next(days for days in range(1, 3000) if floor.keeps_as_much(old, Retention((LastDays(days),))))
    history = [Snapshot(str(hours), now - timedelta(hours=hours)) for hours in range(0, (days + 40) * 24, 7)]
    assert kept_by_rules(history, old, now, zone) <= kept_by_rules(history, Retention((LastDays(days),)), now, zone)


patterns = st.sampled_from(["*", "*.log", "a*", "b", "c.log", "?"])
filter_rules = st.builds(
    lambda kind, pattern: f"{kind} {pattern}", st.sampled_from([FilterKind.EXCLUDE, FilterKind.INCLUDE]), patterns
)
exclude_patterns = st.builds(lambda prefix, pattern: prefix + pattern, st.sampled_from(["", "- ", "+ "]), patterns)
NAMES = ("a", "b", "c.log", "ab", "x.log", "zz")


def let_through(source: Declared) -> set[str]:
    """The names that the rules leave in, by the first rule that matches."""
    parsed = [filters.parse_rule(text) for text in source.filter]
    parsed += [filters.parse_exclude(text) for text in source.exclude]
    through = set()
    for name in NAMES:
        first = next((rule for rule in parsed if fnmatchcase(name, rule.pattern)), None)
        if first is None or first.kind is FilterKind.INCLUDE:
            through.add(name)
    return through


def declared(**options: object) -> Declared:
    values = {"path": "/etc", "frequency": "daily", "retention": "last 5 days", "snapshot_mode": ""}
    return Declared(**{**values, **options})  # type: ignore[arg-type]


@st.composite
def edited(draw: st.DrawFn, texts: list[str], more: st.SearchStrategy[str]) -> list[str]:
    kept = [text for text in texts if draw(st.booleans())]
    for text in draw(st.lists(more, max_size=2)):
        kept.insert(draw(st.integers(0, len(kept))), text)
    return kept


@given(data=st.data())
def test_rules_that_do_not_weaken_let_all_through_that_was_let_through(data: st.DataObject) -> None:
    old_filter = data.draw(st.lists(filter_rules, max_size=4))
    old_exclude = data.draw(st.lists(exclude_patterns, max_size=4))
    old = declared(filter=old_filter, exclude=old_exclude)
    new = declared(
        filter=data.draw(edited(old_filter, filter_rules)), exclude=data.draw(edited(old_exclude, exclude_patterns))
    )
    if weakening.weakenings(old, new):
        event("weakens")
    else:
        event("harmless")
        assert let_through(old) <= let_through(new)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"retention": "last 1 snapshot"}, {Weakening.RETENTION}),
        ({"retention": "last 4 days"}, {Weakening.RETENTION}),
        ({"retention": "last 5 days, last 1 snapshot"}, set()),
        ({"retention": "last 6 days"}, set()),
        ({"path": "/var/empty"}, {Weakening.PATH}),
        ({"path": "/etc/"}, set()),
        ({"exclude": ["*"]}, {Weakening.EXCLUDE}),
        ({"filter": ["- *"]}, {Weakening.FILTER}),
        ({"filter": ["merge everything"]}, {Weakening.FILTER}),
        ({"filter": ["+ /keep"]}, set()),
        ({"snapshot_mode": "none"}, {Weakening.SNAPSHOT_MODE}),
        ({"snapshot_mode": "link-dest"}, set()),
        ({"frequency": "hourly"}, set()),
        ({"frequency": "daily, 0200-0500"}, set()),
        ({"frequency": "cron H H * * *"}, set()),
        ({"frequency": "monthly"}, {Weakening.LESS_OFTEN}),
        ({"frequency": "cron 0 0 29 2 *"}, {Weakening.LESS_OFTEN}),
    ],
)
def test_these_changes_count_as_weaker(change: dict[str, object], expected: set[Weakening]) -> None:
    assert set(weakening.weakenings(declared(), declared(**change))) == expected


def test_backups_more_often_count_where_a_number_of_snapshots_is_kept() -> None:
    old = declared(retention="last 5 days, last 5 snapshots")
    new = declared(retention="last 5 days, last 5 snapshots", frequency="cron * * * * *")
    assert weakening.weakenings(old, new) == (Weakening.MORE_OFTEN,)
    assert weakening.weakenings(old, old) == ()


def test_a_source_that_is_gone_counts() -> None:
    assert weakening.weakenings(declared(), None) == (Weakening.GONE,)


def test_excluded_and_filtered_paths_may_be_let_through() -> None:
    old = declared(filter=["+ /a", "- *.tmp", "- *.log"], exclude=["*.bak", "*.iso"])
    assert weakening.weakenings(old, declared(filter=["+ /a", "+ /b", "- *.log"], exclude=["*.iso"])) == ()
