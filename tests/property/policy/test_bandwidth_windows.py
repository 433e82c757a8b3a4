"""Limits by the time of day against an oracle that looks at every minute, over midnight and where clocks change."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from hypothesis import example, given
from hypothesis import strategies as st

from turku.policy import bandwidth

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
ZONES = [
    ZoneInfo(name) for name in ("UTC", "Europe/Paris", "America/St_Johns", "Australia/Lord_Howe", "Asia/Kathmandu")
]
MINUTE = timedelta(minutes=1)

times = st.one_of(st.integers(0, 24 * 60 - 1), st.sampled_from([0, 90, 120, 150, 180, 210, 23 * 60 + 59]))
rates = st.sampled_from(["0", "1", "512", "20M", "1.5m", "2G", "300k"])
moments = st.one_of(
    st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC)),
    # Around the changes of 2026 in Paris and on Lord Howe Island.
    st.sampled_from(
        [
            datetime(2026, 3, 28, 22, tzinfo=UTC),
            datetime(2026, 10, 24, 22, tzinfo=UTC),
            datetime(2026, 4, 4, 12, tzinfo=UTC),
            datetime(2026, 10, 3, 12, tzinfo=UTC),
        ]
    ).flatmap(lambda begin: st.integers(0, 400).map(lambda minutes: begin + minutes * MINUTE)),
)


@st.composite
def parts(draw: st.DrawFn) -> tuple[str, int, int, set[int]]:
    """A part's text, begin and end in minutes, and days."""
    text, begin, end, days = draw(rates), 0, 24 * 60, set(range(7))
    has_days = draw(st.booleans())
    if not has_days or draw(st.booleans()):
        begin, end = draw(times), draw(times)
        if begin == end:
            end = 24 * 60
        text += f" {begin // 60:02}{begin % 60:02}-{end // 60:02}{end % 60:02}"
        if (begin, end) == (0, 24 * 60):
            has_days = True
    if has_days:
        days = draw(st.sets(st.integers(0, 6), min_size=1, max_size=6))
        text += " " + "+".join(DAYS[day] for day in sorted(days))
    return text, begin, end, days


def rate(text: str) -> int | None:
    """KiB per second."""
    known = {"0": None, "1": 1, "512": 512, "20M": 20480, "1.5m": 1536, "2G": 2 * 1024 * 1024, "300k": 300}
    return known[text.split(maxsplit=1)[0]]


def expected(written: list[tuple[str, int, int, set[int]]], rest: str, moment: datetime, zone: ZoneInfo) -> int | None:
    """The limit, by a table of the minutes of a week."""
    local = moment.astimezone(zone)
    now = (local.weekday() * 24 + local.hour) * 60 + local.minute
    for text, begin, end, days in written:
        length = (end - begin) % (24 * 60) or 24 * 60
        for day in days:
            if (now - (day * 24 * 60 + begin)) % (7 * 24 * 60) < length:
                return rate(text)
    return rate(rest)


def limits(written: list[tuple[str, int, int, set[int]]], rest: str) -> bandwidth.Limits:
    return bandwidth.parse(", ".join([*(part[0] for part in written), rest]))


@given(st.lists(parts(), max_size=4), rates, moments, st.sampled_from(ZONES))
def test_the_first_part_that_holds_counts(
    written: list[tuple[str, int, int, set[int]]], rest: str, moment: datetime, zone: ZoneInfo
) -> None:
    assert limits(written, rest).at(moment, zone) == expected(written, rest, moment, zone)


@given(st.lists(parts(), max_size=3), rates, moments, st.sampled_from(ZONES))
@example([("20M 0230-0800", 150, 480, set(range(7)))], "0", datetime(2026, 3, 29, 0, 30, tzinfo=UTC), ZONES[1])
@example([("20M 0230-0245", 150, 165, set(range(7)))], "0", datetime(2026, 10, 25, 0, 50, tzinfo=UTC), ZONES[1])
def test_the_next_change_is_the_first_minute_with_another_limit(
    written: list[tuple[str, int, int, set[int]]], rest: str, moment: datetime, zone: ZoneInfo
) -> None:
    found = limits(written, rest).next_change(moment, zone)
    now = expected(written, rest, moment, zone)
    minute = moment.replace(second=0, microsecond=0)
    # A day and a half is checked minute by minute. Beyond it, nothing changes before.
    for _ in range(36 * 60):
        minute += MINUTE
        if expected(written, rest, minute, zone) != now:
            assert found == minute
            return
    assert found is None or found > minute
    if found is not None:
        assert expected(written, rest, found, zone) != now
        assert expected(written, rest, found - MINUTE, zone) == now


@given(st.lists(parts(), max_size=3), rates, moments, st.sampled_from(ZONES))
def test_within_a_week_and_a_day_all_that_can_happen_happens(
    written: list[tuple[str, int, int, set[int]]], rest: str, moment: datetime, zone: ZoneInfo
) -> None:
    found, seen = limits(written, rest), set()
    at: datetime | None = moment
    while at is not None and at < moment + timedelta(days=8):
        seen.add(found.at(at, zone))
        at = found.next_change(at, zone)
    hours = [moment + timedelta(minutes=7 * number) for number in range(7 * 24 * 60 // 7)]
    assert {expected(written, rest, hour, zone) for hour in hours} <= seen
