"""Whatever is backed up in between, ``last N snapshots`` and ``last N days`` keep what they kept without it (M4)."""

from datetime import UTC, datetime, timedelta

from hypothesis import assume, given
from hypothesis import strategies as st

from turku.policy import retention
from turku.policy.retention import PERIOD_SHARE, Snapshot

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
lengths = st.sampled_from([timedelta(hours=1), timedelta(days=1), timedelta(days=7), timedelta(days=30)])
shares = st.floats(0, 1, exclude_max=True)
rules = st.lists(
    st.one_of(
        st.builds("last {} snapshots".format, st.integers(1, 12)), st.builds("last {} days".format, st.integers(1, 60))
    ),
    min_size=1,
    max_size=3,
).map(", ".join)


def kept(text: str, snapshots: list[Snapshot], now: datetime) -> set[str]:
    decisions = retention.decide(snapshots, retention.parse(text), now=now, zone=UTC)
    return {decision.snapshot.name for decision in decisions if decision.kept}


def by_rule(text: str, snapshots: list[Snapshot], now: datetime) -> set[str]:
    decisions = retention.decide(snapshots, retention.parse(text), now=now, zone=UTC)
    aside = {retention.NEWEST_GOOD, retention.NO_RULE_KEEPS_ANY}
    return {decision.snapshot.name for decision in decisions if set(decision.reasons) - aside}


def scheduled(length: timedelta, delays: list[float]) -> list[Snapshot]:
    """One snapshot per period, each somewhere in the first quarter of its own."""
    count = len(delays)
    return [
        Snapshot(
            f"scheduled{number:02}",
            NOW - length * (count - number) + length * (1 - PERIOD_SHARE) * delay * 0.99,
            period=length,
        )
        for number, delay in enumerate(delays)
    ]


@given(rules, lengths, st.lists(shares, min_size=1, max_size=20), st.lists(st.tuples(shares, shares), max_size=60))
def test_a_flood_within_the_periods_costs_nothing(
    text: str, length: timedelta, delays: list[float], flood: list[tuple[float, float]]
) -> None:
    history = scheduled(length, delays)
    extra = []
    for number, (which, where) in enumerate(flood):
        after = history[int(which * len(history))].moment
        assert after is not None
        extra.append(Snapshot(f"flood{number}", after + length * PERIOD_SHARE * (0.001 + 0.998 * where), period=length))
    extra = [each for each in extra if each.moment is not None and each.moment <= NOW]
    assert by_rule(text, history, NOW) <= kept(text, [*history, *extra], NOW)


@given(
    st.integers(1, 12),
    lengths,
    st.lists(shares, min_size=2, max_size=20),
    st.lists(shares, max_size=80),
    st.floats(0, 4),
    st.lists(st.booleans(), min_size=80, max_size=80),
)
def test_a_flood_pushes_out_no_more_than_time_would(
    count: int, length: timedelta, delays: list[float], flood: list[float], periods: float, quicker: list[bool]
) -> None:
    """From a compromise on, also under a schedule changed to a period that is half as long."""
    history = scheduled(length, delays)
    lasting = length * periods
    text = f"last {count} snapshots"
    made = [
        Snapshot(f"flood{number}", NOW + lasting * where, period=length / 2 if quicker[number] else length)
        for number, where in enumerate(flood)
    ]
    shortest = length / 2 * PERIOD_SHARE
    places = int(lasting / shortest) + 1 if made else 0
    before = sorted(by_rule(text, history, NOW))
    lost = set(before) - kept(text, [*history, *made], NOW + lasting)
    assert len(lost) <= places
    # And the oldest go first.
    assert lost <= set(before[:places])


@given(st.integers(1, 60), lengths, st.lists(shares, min_size=1, max_size=20), st.lists(st.floats(-1, 30), max_size=60))
def test_days_are_kept_whatever_the_flood(
    days: int, length: timedelta, delays: list[float], flood: list[float]
) -> None:
    assume(flood)
    history = scheduled(length, delays)
    made = [Snapshot(f"flood{number}", NOW - length * back, period=length) for number, back in enumerate(flood)]
    text = f"last {days} days"
    assert by_rule(text, history, NOW) <= kept(text, [*history, *made], NOW)
