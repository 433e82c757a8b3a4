"""The times at which a source is due."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from turku.errors import InvalidValue
from turku.policy.timing import schedule

BERLIN = ZoneInfo("Europe/Berlin")
LORD_HOWE = ZoneInfo("Australia/Lord_Howe")
APIA = ZoneInfo("Pacific/Apia")
WEDNESDAY = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)


def dues(
    text: str, moment: datetime, count: int = 1, *, identity: str = "alice/etc", zone: tzinfo = UTC
) -> list[datetime]:
    parsed = schedule.parse(text)
    assert parsed.text == text
    found: list[datetime] = []
    for _ in range(count):
        moment = parsed.next_after(moment, identity=identity, zone=zone)
        assert moment.utcoffset() == timedelta(0)
        found.append(moment)
    return found


def clocks(
    text: str, moment: datetime, count: int = 1, *, identity: str = "alice/etc", zone: tzinfo = UTC
) -> list[str]:
    return [f"{due.astimezone(zone):%m-%d %H:%M}" for due in dues(text, moment, count, identity=identity, zone=zone)]


def test_a_day_with_a_time() -> None:
    assert clocks("tuesday, 0200", WEDNESDAY, 2) == ["12-01 02:00", "12-08 02:00"]
    assert clocks("Sunday , 2359", WEDNESDAY) == ["11-29 23:59"]


def test_a_day_name_on_that_same_day_gives_no_time_already_past() -> None:
    assert clocks("wednesday, 1300", WEDNESDAY) == ["11-25 13:00"]
    assert clocks("wednesday, 1200", WEDNESDAY) == ["12-02 12:00"]
    assert clocks("wednesday, 1159", WEDNESDAY) == ["12-02 11:59"]


def test_the_next_moment_is_strictly_later() -> None:
    assert clocks("daily, 1200", WEDNESDAY) == ["11-26 12:00"]
    assert clocks("daily, 1200", WEDNESDAY - timedelta(microseconds=1)) == ["11-25 12:00"]


def test_a_range_may_roll_over_midnight() -> None:
    after_midnight = [identity for identity in map(str, range(200)) if _hour("tuesday, 2200-0200", identity) < 12]
    assert 50 < len(after_midnight) < 150
    due = dues("tuesday, 2200-0200", WEDNESDAY, identity=after_midnight[0])[0]
    assert (due.strftime("%A"), due.hour) in (("Wednesday", 0), ("Wednesday", 1))
    tuesday_midnight = datetime(2026, 11, 25, 0, 0, tzinfo=UTC)
    assert dues("tuesday, 2200-0200", tuesday_midnight, identity=after_midnight[0])[0].day == 25


def _hour(text: str, identity: str) -> int:
    return dues(text, WEDNESDAY, identity=identity)[0].hour


def test_a_range_from_a_time_to_itself_is_that_time() -> None:
    assert clocks("daily, 0300-0300", WEDNESDAY) == ["11-26 03:00"]


def test_a_whole_day_may_be_written_to_2400() -> None:
    assert 0 <= _hour("daily, 0000-2400", "x") < 24


def test_sources_spread_and_each_keeps_its_moment() -> None:
    identities = [f"source {number}" for number in range(400)]
    for text, values in (("daily", 24), ("weekly", 7), ("monthly", 28), ("hourly", 60)):
        found = {identity: dues(text, WEDNESDAY, 2, identity=identity) for identity in identities}
        readers: dict[str, Callable[[datetime], int]] = {
            "daily": lambda due: due.hour,
            "weekly": lambda due: due.weekday(),
            "monthly": lambda due: due.day,
            "hourly": lambda due: due.minute,
        }
        read = readers[text]
        assert len({read(first) for first, _second in found.values()}) == values
        assert all(read(first) == read(second) for first, second in found.values())


def test_a_source_keeps_its_hour_when_its_frequency_changes() -> None:
    times = {dues(text, WEDNESDAY)[0].time() for text in ("daily", "weekly", "monthly", "friday")}
    assert len(times) == 1
    assert dues("hourly", WEDNESDAY)[0].time().minute == times.pop().minute


def test_monthly_comes_in_every_month() -> None:
    for identity in map(str, range(40)):
        months = [(due.year, due.month) for due in dues("monthly", WEDNESDAY, 30, identity=identity)]
        start = months[0][0] * 12 + months[0][1]
        assert [year * 12 + month for year, month in months] == list(range(start, start + 30))


def test_hourly_comes_every_hour() -> None:
    found = dues("hourly", WEDNESDAY, 50)
    assert {after - before for before, after in pairwise(found)} == {timedelta(hours=1)}
    assert found[0] - WEDNESDAY <= timedelta(hours=1)


def test_hourly_with_a_time_is_at_that_minute_of_every_hour() -> None:
    assert clocks("hourly, 0215", WEDNESDAY, 3) == ["11-25 12:15", "11-25 13:15", "11-25 14:15"]


def test_hourly_with_a_range_is_in_its_hours_only() -> None:
    hours = [due.hour for due in dues("hourly, 2200-0200", WEDNESDAY, 9)]
    assert hours == [22, 23, 0, 1, 22, 23, 0, 1, 22]
    assert [due.hour for due in dues("hourly, 0200-0210", WEDNESDAY, 2)] == [2, 2]


def test_a_time_that_the_clock_skips_comes_after_the_gap_that_day() -> None:
    before = datetime(2026, 3, 28, 12, 0, tzinfo=BERLIN)
    assert clocks("daily, 0230", before, 3, zone=BERLIN) == ["03-29 03:30", "03-30 02:30", "03-31 02:30"]
    assert clocks("cron 30 2 * * *", before, 3, zone=BERLIN) == ["03-29 03:30", "03-30 02:30", "03-31 02:30"]


def test_a_time_that_the_clock_skips_is_still_ahead_within_the_gap() -> None:
    within = datetime(2026, 3, 29, 3, 10, tzinfo=BERLIN)
    assert clocks("daily, 0230", within, zone=BERLIN) == ["03-29 03:30"]
    assert clocks("cron 30 2 * * *", within, zone=BERLIN) == ["03-29 03:30"]


@pytest.mark.parametrize("text", ["daily, 0230", "cron 30 2 * * *"])
def test_a_time_that_the_clock_shows_twice_comes_once(text: str) -> None:
    found = dues(text, datetime(2026, 10, 24, 12, 0, tzinfo=BERLIN), 3, zone=BERLIN)
    assert found == [
        datetime(2026, 10, 25, 0, 30, tzinfo=UTC),
        datetime(2026, 10, 26, 1, 30, tzinfo=UTC),
        datetime(2026, 10, 27, 1, 30, tzinfo=UTC),
    ]
    between = datetime(2026, 10, 25, 2, 15, fold=1, tzinfo=BERLIN)
    assert dues(text, between, zone=BERLIN) == [datetime(2026, 10, 26, 1, 30, tzinfo=UTC)]


@pytest.mark.parametrize("text", ["hourly, 0015", "cron 15 * * * *"])
@pytest.mark.parametrize("day", [datetime(2026, 3, 28, 22, tzinfo=UTC), datetime(2026, 10, 24, 22, tzinfo=UTC)])
def test_every_hour_is_every_hour_also_when_clocks_change(text: str, day: datetime) -> None:
    found = dues(text, day, 8, zone=BERLIN)
    assert found == [day + timedelta(minutes=15, hours=hour) for hour in range(8)]


def test_every_quarter_is_every_quarter_also_when_clocks_change() -> None:
    for day in (datetime(2026, 3, 29, tzinfo=UTC), datetime(2026, 10, 25, tzinfo=UTC)):
        found = dues("cron */15 * * * *", day, 20, zone=BERLIN)
        assert found == [day + timedelta(minutes=15 * (number + 1)) for number in range(20)]


def test_clocks_that_change_by_half_an_hour() -> None:
    assert clocks("daily, 0215", datetime(2026, 10, 3, 12, tzinfo=LORD_HOWE), 2, zone=LORD_HOWE) == [
        "10-04 02:45",
        "10-05 02:15",
    ]


def test_a_day_that_a_country_skipped_costs_one_backup_and_no_more() -> None:
    moment = datetime(2011, 12, 28, 12, tzinfo=APIA)
    for text in ("daily, 0300", "cron 0 3 * * *"):
        assert clocks(text, moment, 3, zone=APIA) == ["12-29 03:00", "12-31 03:00", "01-01 03:00"]


def test_the_year_ends() -> None:
    moment = datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC)
    assert clocks("daily, 0000", moment) == ["01-01 00:00"]
    assert clocks("cron 0 0 1 1 *", moment, 2) == ["01-01 00:00", "01-01 00:00"]


def test_cron_counts_on_the_zones_clocks() -> None:
    assert dues("cron 30 9 * * mon-fri", WEDNESDAY, 3, zone=BERLIN) == [
        datetime(2026, 11, 26, 8, 30, tzinfo=UTC),
        datetime(2026, 11, 27, 8, 30, tzinfo=UTC),
        datetime(2026, 11, 30, 8, 30, tzinfo=UTC),
    ]


def test_cron_hashes_each_source_to_a_moment_it_keeps() -> None:
    text = "cron H H(0-5) * * *"
    found = {identity: dues(text, WEDNESDAY, 2, identity=identity) for identity in map(str, range(200))}
    assert all(second - first == timedelta(days=1) for first, second in found.values())
    assert {first.hour for first, _second in found.values()} == set(range(6))
    assert len({first.minute for first, _second in found.values()}) > 50
    found_quarters = dues("cron H/15 * * * *", WEDNESDAY, 5)
    assert {after - before for before, after in pairwise(found_quarters)} == {timedelta(minutes=15)}


def test_minutes_and_hours_of_a_hashed_cron_are_drawn_apart() -> None:
    found = {dues("cron H H * * *", WEDNESDAY, identity=identity)[0] for identity in map(str, range(3000))}
    # 3,000 sources thrown at 1,440 minutes leave 179 empty. From one number for both they would fill 240.
    assert len(found) > 1200


def test_a_hashed_day_of_the_month_is_in_every_month() -> None:
    for identity in map(str, range(60)):
        months = [due.month for due in dues("cron H H H * *", WEDNESDAY, 13, identity=identity)]
        assert set(months) == set(range(1, 13))


def test_a_random_cron_is_lawful() -> None:
    moment = dues("cron R R * * *", WEDNESDAY)[0]
    assert timedelta(0) < moment - WEDNESDAY <= timedelta(days=2)


def test_a_leap_day_is_found_over_a_century() -> None:
    assert dues("cron 0 0 29 2 *", datetime(2096, 3, 1, tzinfo=UTC)) == [datetime(2104, 2, 29, tzinfo=UTC)]


@pytest.mark.parametrize(
    ("text", "period"),
    [
        ("hourly", timedelta(hours=1)),
        ("hourly, 2200-0600", timedelta(hours=1)),
        ("daily", timedelta(days=1)),
        ("weekly, 0200", timedelta(days=7)),
        ("tuesday", timedelta(days=7)),
        ("monthly", timedelta(days=30)),
        ("cron */15 * * * *", timedelta(minutes=15)),
        ("cron 0 2 * * mon-fri", timedelta(days=1)),
        ("cron H H * * H", timedelta(days=7)),
    ],
)
def test_a_schedule_has_a_period(text: str, period: timedelta) -> None:
    assert schedule.parse(text).period == period


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            " ",
            ",",
            "whenever",
            "tuesdays",
            "daily 0200",
            "daily,",
            "daily, ",
            "daily, 2",
            "daily, 200",
            "daily, 02:00",
        ),
        *("daily, 2400", "daily, 0260", "daily, 2500-0100", "daily, 0100-2401", "daily, 0100-", "daily, -0100"),
        *(
            "daily, 0100-0200-0300",
            "daily, 0100, 0200",
            "daily, ٠٢٠٠",
            "tuesday, noon",
            "daily\0",
            "daily\ud800",
            "x" * 201,
        ),
        *("cron", "cron ", "cron * * * *", "cron * * * * * *", "cron @daily", "cron x * * * *", "cron 60 * * * *"),
        *(
            "cron * 24 * * *",
            "cron * * 0 * *",
            "cron * * * 13 *",
            "cron * * * * 8",
            "cron */0 * * * *",
            "cron 5-1 - * * *",
        ),
        *(
            "cron 0 0 30 2 *",
            "cron 0 0 31 2,4,6,9,11 *",
            "cron H(50-99) * * * *",
            "cron H(5-1) * * * *",
            "cron H/0 * * * *",
        ),
        *(
            "cron 1-99999999999 * * * *",
            "cron , * * * *",
            "cron * * * * mon#9",
            "cron -1 * * * *",
            "cron \u0665 * * * *",
        ),
    ],
)
def test_malformed_text_is_refused_with_what_would_be_right(text: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        schedule.parse(text)
    assert "Traceback" not in caught.value.message
    if "\ud800" not in text:
        assert caught.value.hint
    if text.startswith("cron "):
        assert "cron MINUTE HOUR DAY MONTH WEEKDAY" in caught.value.hint


def test_a_misspelt_day_is_guessed() -> None:
    with pytest.raises(InvalidValue, match="did you mean tuesday"):
        schedule.parse("teusday, 0200")


def test_a_hashed_expression_that_never_occurs_for_a_source_is_an_error_of_policy() -> None:
    refused = 0
    for identity in map(str, range(30)):
        try:
            dues("cron 0 0 H(28-31) 2 *", WEDNESDAY, identity=identity)
        except InvalidValue:
            refused += 1
    assert refused > 5


@pytest.mark.parametrize("text", ["hourly", "monthly, 2200-0600", "cron * * * * *", "cron 0 0 29 2 *"])
def test_the_ends_of_the_calendar_are_errors_of_policy(text: str) -> None:
    parsed = schedule.parse(text)
    for moment in (datetime.min, datetime.max):
        with pytest.raises(InvalidValue):
            parsed.next_after(moment.replace(tzinfo=BERLIN), identity="x", zone=BERLIN)
    with pytest.raises(ValueError, match="no zone"):
        parsed.next_after(datetime(2026, 1, 1), identity="x", zone=BERLIN)
