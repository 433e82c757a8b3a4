"""Every schedule, in zones whose clocks change in every way, around the days they do."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from turku.errors import InvalidValue
from turku.policy.timing import schedule

ZONES = [
    ZoneInfo(name)
    for name in (
        *("UTC", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "Pacific/Apia", "Africa/Casablanca"),
        *("America/Sao_Paulo", "Asia/Kathmandu", "Pacific/Kiritimati", "Africa/Cairo"),
    )
]
CHANGES = [
    *(datetime(2026, 3, 29, 1), datetime(2026, 10, 25, 1), datetime(2026, 4, 4, 15), datetime(2026, 10, 3, 15)),
    *(datetime(2011, 12, 30, 10), datetime(2026, 3, 8, 5), datetime(2026, 11, 1, 4), datetime(2018, 11, 4, 3)),
    *(datetime(2026, 2, 15, 2), datetime(2026, 12, 31, 23), datetime(2028, 2, 28, 23), datetime(2014, 5, 15, 22)),
]
near_changes = st.builds(
    lambda change, seconds: (change + timedelta(seconds=seconds)).replace(tzinfo=UTC),
    st.sampled_from(CHANGES),
    st.integers(-3 * 86400, 3 * 86400),
)
moments = near_changes | st.datetimes(datetime(1990, 1, 1), datetime(2060, 1, 1), timezones=st.just(UTC))
zones = st.sampled_from(ZONES)
identities = st.text(max_size=8)
minutes = st.integers(0, 24 * 60 - 1)


def hhmm(minute: int) -> str:
    return f"{minute // 60:02}{minute % 60:02}"


ranges = st.builds("{}-{}".format, minutes.map(hhmm), minutes.map(hhmm))
kinds = st.sampled_from(["daily", "weekly", "monthly", *schedule.WEEKDAYS])
calendar_texts = kinds | st.builds("{}, {}".format, kinds, minutes.map(hhmm) | ranges)
hourly_texts = st.just("hourly") | st.builds("hourly, {}".format, minutes.map(hhmm) | ranges)
cron_fields = {
    "minute": st.sampled_from(["*", "*/15", "0", "30", "H", "H/20", "5,59", "H(10-20)"]),
    "hour": st.sampled_from(["*", "0", "1", "2", "2,3", "H", "H(0-5)", "23", "*/6"]),
    "day": st.sampled_from(["*", "*", "1", "H", "31", "l"]),
    "month": st.sampled_from(["*", "*", "3,10", "H", "2-5"]),
    "weekday": st.sampled_from(["*", "*", "sun", "1-5", "H"]),
}
# The 31st of a month that may be drawn to be a short one never comes: an error of policy, which has a test of its own.
cron_texts = st.builds("cron {minute} {hour} {day} {month} {weekday}".format, **cron_fields).filter(
    lambda text: " 31 H " not in text
)
any_text = calendar_texts | hourly_texts | cron_texts


@given(any_text, moments, identities, zones, st.floats(0, 1, exclude_max=True))
def test_the_next_moment_is_later_and_the_same_from_anywhere_before_it(
    text: str, moment: datetime, identity: str, zone: ZoneInfo, share: float
) -> None:
    parsed = schedule.parse(text)
    due = parsed.next_after(moment, identity=identity, zone=zone)
    assert due > moment
    assert due.tzinfo is UTC
    assert due == parsed.next_after(moment.astimezone(zone), identity=identity, zone=zone)
    between = moment + (due - moment) * share
    if between < due:
        assert parsed.next_after(between, identity=identity, zone=zone) == due
    assert parsed.next_after(due, identity=identity, zone=zone) > due


@given(calendar_texts, moments, identities, zones)
def test_the_wait_of_days_is_bounded(text: str, moment: datetime, identity: str, zone: ZoneInfo) -> None:
    longest = {"daily": 1, "monthly": 31}.get(text.partition(",")[0], 7)
    assert schedule.parse(text).longest_pause == timedelta(days=longest)
    due = schedule.parse(text).next_after(moment, identity=identity, zone=zone)
    assert due - moment <= timedelta(days=longest + 1), "a day more, where clocks change or a day is skipped"


@given(any_text, moments, identities, zones)
def test_no_pause_is_longer_than_the_schedule_says(text: str, moment: datetime, identity: str, zone: ZoneInfo) -> None:
    parsed = schedule.parse(text)
    assert parsed.longest_pause in schedule.LONGEST_PAUSES
    due = parsed.next_after(moment, identity=identity, zone=zone)
    assert due - moment <= parsed.longest_pause + timedelta(days=1), "a day more, where one is skipped"


@given(
    st.sampled_from(["cron 0 0 * * fri#5", "cron 0 0 31 * *", "cron 0 0 30 * *", "cron 0 0 H * *", "cron 0 0 * * mon"]),
    moments,
    identities,
)
def test_a_rare_day_of_every_month_is_bounded(text: str, moment: datetime, identity: str) -> None:
    parsed = schedule.parse(text)
    assert parsed.longest_pause <= timedelta(days=150)
    assert parsed.next_after(moment, identity=identity, zone=ZONES[0]) - moment <= parsed.longest_pause


@given(st.builds("{}, {}".format, kinds, ranges), moments, identities, zones)
def test_the_moment_is_in_its_range_where_the_clock_shows_it(
    text: str, moment: datetime, identity: str, zone: ZoneInfo
) -> None:
    local = schedule.parse(text).next_after(moment, identity=identity, zone=zone).astimezone(zone)
    start, end = text.rpartition(" ")[2].split("-")
    shown = local.strftime("%H%M")
    inside = start <= shown <= end if start <= end else shown >= start or shown <= end
    assert inside or _clock_changes_on(local)


def _clock_changes_on(local: datetime) -> bool:
    zone = local.tzinfo
    offsets = {(local.astimezone(UTC) + timedelta(hours=hours)).astimezone(zone).utcoffset() for hours in (-25, 0, 25)}
    return len(offsets) > 1


@given(near_changes, identities, zones, minutes)
@settings(max_examples=50)
def test_daily_is_once_for_each_day(moment: datetime, identity: str, zone: ZoneInfo, minute: int) -> None:
    for text in ("daily", f"daily, {hhmm(minute)}", f"cron {minute % 60} {minute // 60} * * *"):
        parsed = schedule.parse(text)
        dues = [moment]
        while dues[-1] < moment + timedelta(days=8):
            dues.append(parsed.next_after(dues[-1], identity=identity, zone=zone))
        gaps = [after - before for before, after in pairwise(dues[1:])]
        assert all(timedelta(hours=22) < gap < timedelta(hours=26) for gap in gaps)


@given(moments, identities, zones)
@settings(max_examples=50)
def test_monthly_is_once_in_every_month(moment: datetime, identity: str, zone: ZoneInfo) -> None:
    parsed = schedule.parse("monthly")
    months: list[int] = []
    for _ in range(14):
        moment = parsed.next_after(moment, identity=identity, zone=zone)
        months.append(moment.astimezone(zone).year * 12 + moment.astimezone(zone).month)
    assert months == list(range(months[0], months[0] + 14))


@given(moments, identities, zones)
def test_hourly_is_never_more_than_an_hour_away(moment: datetime, identity: str, zone: ZoneInfo) -> None:
    due = schedule.parse("hourly").next_after(moment, identity=identity, zone=zone)
    assert due - moment <= timedelta(hours=1, minutes=30), "half an hour more, where clocks change by that"


def cron_oracle(minutes: set[int], hours: set[int] | None, start: datetime, zone: ZoneInfo) -> Iterator[datetime]:
    """Due moments from a walk over every minute of some days: what clocks show, skip and repeat is looked at."""
    before = start.astimezone(zone).replace(tzinfo=None)
    seen: set[datetime] = set()
    pending: list[datetime] = []
    for step in range(1, 4 * 24 * 60):
        moment = start + timedelta(minutes=step)
        wall = moment.astimezone(zone).replace(tzinfo=None)
        skipped = wall - before - timedelta(minutes=1)
        # What the clock skips comes as long after the gap's start as it would have.
        for ahead in range(max(int(skipped.total_seconds() // 60), 0)):
            hidden = before + timedelta(minutes=1 + ahead)
            if hidden.minute in minutes and (hours is None or hidden.hour in hours):
                pending.append(moment + timedelta(minutes=ahead))
        matches = wall.minute in minutes and (hours is None or wall.hour in hours)
        if moment in pending or (matches and (hours is None or wall not in seen)):
            yield moment
        seen.add(wall)
        before = wall


@given(
    near_changes,
    zones,
    st.sets(st.integers(0, 59), min_size=1, max_size=4),
    st.none() | st.sets(st.integers(0, 4) | st.integers(0, 23), min_size=1, max_size=4),
)
@settings(max_examples=40)
def test_cron_agrees_with_a_walk_over_every_minute(
    moment: datetime, zone: ZoneInfo, minutes: set[int], hours: set[int] | None
) -> None:
    start = (moment - timedelta(days=2)).replace(second=0)
    hour_field = "*" if hours is None else ",".join(map(str, hours))
    parsed = schedule.parse(f"cron {','.join(map(str, minutes))} {hour_field} * * *")
    expected = [due for due in cron_oracle(minutes, hours, start, zone) if due >= start + timedelta(days=1)][:40]
    found, due = [], expected[0] - timedelta(seconds=1)
    for _ in expected:
        due = parsed.next_after(due, identity="", zone=zone)
        found.append(due)
    assert found == expected


@given(
    st.text(st.characters(), max_size=30)
    | st.builds("cron {}".format, st.text("*/-,HhRrLlWw#?()0123456789 mon", max_size=20))
)
def test_any_text_is_a_schedule_or_refused(text: str) -> None:
    try:
        parsed = schedule.parse(text)
        due = parsed.next_after(datetime(2026, 1, 1, tzinfo=UTC), identity="x", zone=ZONES[1])
    except InvalidValue:
        return
    assert due > datetime(2026, 1, 1, tzinfo=UTC)
    assert parsed.period > timedelta(0)
