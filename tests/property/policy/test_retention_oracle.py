"""Retention against a second reading of the contract, written without the first."""

import calendar
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from turku.errors import InvalidValue
from turku.policy import floor, retention
from turku.policy.retention import Snapshot

ZONES = [ZoneInfo(name) for name in ("UTC", "Europe/Berlin", "America/St_Johns", "Pacific/Apia", "Pacific/Kiritimati")]
NOWS = st.datetimes(datetime(2011, 12, 20), datetime(2027, 3, 1), timezones=st.just(UTC))
rule_texts = st.one_of(
    st.builds("last {} days".format, st.integers(1, 40)),
    st.builds("last {} snapshots".format, st.integers(1, 8)),
    st.builds(
        "earliest of {} {}s".format,
        st.integers(1, 5) | st.sampled_from([53, 36500]),
        st.sampled_from(["day", "week", "month"]),
    ),
)
policies = st.lists(rule_texts, min_size=1, max_size=4)
ages = st.integers(-3, 24 * 120).map(lambda hours: timedelta(hours=hours)) | st.timedeltas(
    timedelta(days=-2), timedelta(days=800)
)
histories = st.lists(
    st.tuples(ages | st.none(), st.booleans() | st.just(True), st.sampled_from([False] * 5 + [True])), max_size=25
)


def snapshots_of(history: list[tuple[timedelta | None, bool, bool]], now: datetime) -> list[Snapshot]:
    return [
        Snapshot(f"s{number:02}", None if age is None else now - age, is_good=good, is_held=held)
        for number, (age, good, held) in enumerate(history)
    ]


def windows(unit: str, count: int, today: date) -> Iterator[tuple[date, date]]:
    """First and last day of this period and of the ``count - 1`` before it."""
    first = today
    if unit == "week":
        while calendar.day_name[first.weekday()] != "Sunday":
            first -= timedelta(days=1)
    elif unit == "month":
        first = today.replace(day=1)
    for _ in range(count):
        if unit == "day":
            last = first
        elif unit == "week":
            last = first + timedelta(days=6)
        else:
            last = first.replace(day=calendar.monthrange(first.year, first.month)[1])
        yield first, last
        if first.year < now_floor:
            return
        before = first - timedelta(days=1)
        first = before.replace(day=1) if unit == "month" else first - (last - first) - timedelta(days=1)


now_floor = 2005
"""No snapshot of these tests is older."""


def kept_by(rule: str, snapshots: list[Snapshot], *, now: datetime, zone: ZoneInfo) -> set[str]:
    """The names that one rule keeps of good, bad, past, dated, not held snapshots."""
    words = rule.split()
    kept: set[str] = set()
    if words[0] == "last" and words[2] == "days":
        edge = now.timestamp() - int(words[1]) * 86400
        return {s.name for s in snapshots if s.moment is not None and s.moment.timestamp() >= edge}
    newest_first = sorted(snapshots, key=lambda s: (s.moment or now, s.name), reverse=True)
    if words[0] == "last":
        for snapshot in newest_first:
            newer_good = [s for s in newest_first[: newest_first.index(snapshot)] if s.is_good]
            if len(newer_good) < int(words[1]):
                kept.add(snapshot.name)
        return kept
    for first, last in windows(words[3].rstrip("s"), int(words[2]), now.astimezone(zone).date()):
        inside = [s for s in snapshots if s.moment and first <= s.moment.astimezone(zone).date() <= last]
        for candidates in (inside, [s for s in inside if s.is_good]):
            if candidates:
                kept.add(min(candidates, key=lambda s: (s.moment or now, s.name)).name)
    return kept


def oracle(rules: list[str], snapshots: list[Snapshot], *, now: datetime, zone: ZoneInfo) -> set[str]:
    untouchable = {s.name for s in snapshots if s.moment is None or s.moment > now or s.is_held}
    ruled = [s for s in snapshots if s.name not in untouchable]
    kept = set().union(*(kept_by(rule, ruled, now=now, zone=zone) for rule in rules))
    good = [s for s in ruled if s.is_good]
    if good:
        newest = max(good, key=lambda s: (s.moment or now, s.name))
        kept_with_newest = kept | {newest.name}
    else:
        kept_with_newest = kept
    return untouchable | (kept_with_newest if kept else {s.name for s in ruled})


def decided(rules: list[str], snapshots: list[Snapshot], *, now: datetime, zone: ZoneInfo) -> set[str]:
    decisions = retention.decide(snapshots, retention.parse(", ".join(rules)), now=now, zone=zone)
    assert tuple(decision.snapshot for decision in decisions) == tuple(snapshots)
    assert all(decision.kept == (decision.reasons != ()) for decision in decisions)
    return {decision.snapshot.name for decision in decisions if decision.kept}


@given(policies, histories, NOWS, st.sampled_from(ZONES))
def test_both_readings_agree(
    rules: list[str], history: list[tuple[timedelta | None, bool, bool]], now: datetime, zone: ZoneInfo
) -> None:
    snapshots = snapshots_of(history, now)
    assert decided(rules, snapshots, now=now, zone=zone) == oracle(rules, snapshots, now=now, zone=zone)


@given(policies, policies, histories, NOWS, st.sampled_from(ZONES))
def test_another_rule_never_costs_a_snapshot_that_rules_kept(
    rules: list[str],
    others: list[str],
    history: list[tuple[timedelta | None, bool, bool]],
    now: datetime,
    zone: ZoneInfo,
) -> None:
    snapshots = snapshots_of(history, now)
    ruled = retention.decide(snapshots, retention.parse(", ".join(others)), now=now, zone=zone)
    by_floor = {each.snapshot.name for each in ruled if each.kept and retention.NO_RULE_KEEPS_ANY not in each.reasons}
    union = floor.effective(", ".join(rules), ", ".join(others))
    assert by_floor <= decided(union.text.split(", "), snapshots, now=now, zone=zone)


@given(policies, histories, NOWS, st.sampled_from(ZONES), st.randoms(use_true_random=False))
def test_the_order_given_does_not_matter(
    rules: list[str],
    history: list[tuple[timedelta | None, bool, bool]],
    now: datetime,
    zone: ZoneInfo,
    chance: st.DataObject,
) -> None:
    snapshots = snapshots_of(history, now)
    shuffled = list(snapshots)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    assert decided(rules, snapshots, now=now, zone=zone) == decided(rules, shuffled, now=now, zone=zone)


@given(policies, histories, NOWS, st.sampled_from(ZONES))
def test_snapshots_that_the_existing_system_keeps_are_kept(
    rules: list[str], history: list[tuple[timedelta | None, bool, bool]], now: datetime, zone: ZoneInfo
) -> None:
    snapshots = snapshots_of(history, now)
    ours = decided(rules, snapshots, now=now, zone=zone)
    past = sorted(
        (s for s in snapshots if s.moment and s.moment <= now and not s.is_held and s.is_good),
        key=lambda s: (s.moment or now, s.name),
    )
    for rule in rules:
        words = rule.split()
        if words[0] != "earliest":
            continue
        start = list(windows(words[3].rstrip("s"), int(words[2]), now.astimezone(zone).date()))[-1][0]
        since = [s for s in past if s.moment and s.moment.astimezone(zone).date() >= start]
        assert not since or since[0].name in ours


@given(st.text(st.characters(), max_size=60) | policies.map(", ".join))
def test_any_text_is_understood_whole_or_refused(text: str) -> None:
    try:
        parsed = retention.parse(text)
    except InvalidValue:
        return
    assert retention.parse(parsed.text) == parsed
    assert parsed.rules


@given(
    histories=st.lists(
        st.tuples(st.integers(0, 24 * 90).map(lambda hours: timedelta(hours=hours)), st.booleans() | st.just(True)),
        min_size=1,
        max_size=15,
        unique_by=lambda each: each[0],
    ),
    rules=st.lists(
        st.one_of(
            st.builds("last {} days".format, st.integers(1, 20)),
            st.builds("last {} snapshots".format, st.integers(1, 8)),
            st.builds("earliest of {} {}s".format, st.integers(1, 4), st.sampled_from(["day", "week", "month"])),
        ),
        min_size=1,
        max_size=3,
    ),
    now=NOWS,
    zone=st.sampled_from(ZONES),
    period=st.integers(1, 96).map(lambda hours: timedelta(hours=hours)),
)
def test_until_is_the_moment_from_which_no_rule_keeps_it_if_snapshots_come_as_expected(
    histories: list[tuple[timedelta, bool]], rules: list[str], now: datetime, zone: ZoneInfo, period: timedelta
) -> None:
    parsed = retention.parse(", ".join(rules))
    stored = [
        Snapshot(f"s{number:02}", now - age, is_good=is_good, period=period)
        for number, (age, is_good) in enumerate(histories)
    ]
    upcoming = retention.Upcoming(now + period, period)

    def is_kept(name: str, moment: datetime) -> bool:
        coming: list[Snapshot] = []
        while upcoming.moment(len(coming)) <= moment:
            coming.append(Snapshot(f"t{len(coming)}", upcoming.moment(len(coming)), period=period))
        decisions = retention.decide([*stored, *coming], parsed, now=moment, zone=zone)
        # Until the next snapshot comes, all stay where no rule would keep any.
        return any(
            set(each.reasons) - {retention.NO_RULE_KEEPS_ANY} for each in decisions if each.snapshot.name == name
        )

    instant = timedelta(microseconds=1)
    for decision in retention.decide(stored, parsed, now=now, zone=zone, upcoming=upcoming):
        assert (decision.until is not None) == decision.kept
        if decision.until is not None:
            if retention.NO_RULE_KEEPS_ANY not in decision.reasons:
                assert is_kept(decision.snapshot.name, max(decision.until - instant, now))
            assert not is_kept(decision.snapshot.name, decision.until + instant)
