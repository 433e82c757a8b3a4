"""Bandwidth limits as people and older agents write them."""

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from turku.errors import InvalidValue
from turku.policy.bandwidth import kib_per_second, parse


@pytest.mark.parametrize("value", [None, 0, 0.0, "", " ", "0", "0.0"])
def test_nothing_and_zero_are_no_limit(value: Any) -> None:
    assert kib_per_second(value) is None


@pytest.mark.parametrize("value", [512, 512.0, "512", " 512 ", "512.0"])
def test_a_number_in_any_form_is_a_limit(value: Any) -> None:
    assert kib_per_second(value) == 512


def test_the_largest_limit_is_lawful() -> None:
    assert kib_per_second(2**31 - 1) == 2**31 - 1


@pytest.mark.parametrize(
    "value",
    [
        *(True, False, -1, -0.5, 1.5, "1.5", "fast", "512k", "-1", "+1", "1e3", "٥١٢", "0x10", "1_000"),
        *(float("nan"), float("inf"), float("-inf"), "nan", "inf", 2**31, "9" * 400),
        *([], {}, [512], b"512"),
    ],
)
def test_anything_else_is_refused_with_what_would_be_right(value: Any) -> None:
    with pytest.raises(InvalidValue) as caught:
        kib_per_second(value)
    assert "KiB/s" in caught.value.hint


def test_numbers_too_long_to_print_are_refused() -> None:
    for value in (10**5000, -(10**5000)):
        with pytest.raises(InvalidValue):
            kib_per_second(value)


PARIS = ZoneInfo("Europe/Paris")


def limit_at(text: str, wall: str) -> int | None:
    """The limit when the clocks of Paris show that."""
    return parse(text).at(datetime.fromisoformat(wall).replace(tzinfo=PARIS), PARIS)


@pytest.mark.parametrize(
    ("wall", "limit"),
    [
        ("2026-11-24 07:59:59", None),
        ("2026-11-24 08:00", 20 * 1024),
        ("2026-11-24 17:59:59", 20 * 1024),
        ("2026-11-24 18:00", None),
    ],
)
def test_a_window_holds_from_its_first_minute_to_its_last(wall: str, limit: int | None) -> None:
    assert limit_at("20M 0800-1800, 0", wall) == limit


@pytest.mark.parametrize(
    ("wall", "limit"),
    [
        ("2026-11-27 22:00", 5),
        ("2026-11-28 05:59", 5),
        ("2026-11-28 06:00", 1),
        ("2026-11-28 22:00", 1),
        ("2026-11-27 05:59", 1),
    ],
)
def test_days_are_those_on_which_a_window_over_midnight_begins(wall: str, limit: int) -> None:
    # 27 November 2026 is a Friday.
    assert limit_at("5 2200-0600 fri, 1", wall) == limit


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("20M", 20480),
        ("512k", 512),
        ("1.5M", 1536),
        ("2g", 2 * 1024 * 1024),
        ("0.0001K", 1),
        ("0M", None),
        ("512", 512),
    ],
)
def test_a_rate_alone_holds_always(text: str, rest: int | None) -> None:
    limits = parse(text)
    assert (limits.rest, limits.changes) == (rest, False)
    assert limits.next_change(datetime(2026, 11, 24, tzinfo=UTC), PARIS) is None


def test_days_may_be_ranges_sums_and_stand_without_hours() -> None:
    for wall, limit in (("2026-11-28 12:00", 7), ("2026-11-29 12:00", 7), ("2026-11-30 12:00", 9)):
        for text in ("7 sat-sun, 9", "7 Sat+SUN, 9", "7 0000-2400 sat+sun , 9"):
            assert limit_at(text, wall) == limit
    assert limit_at("7 fri-mon, 9", "2026-11-30 12:00") == 7


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("20M 0800-1800", "last part is for the rest"),
        ("0, 20M 0800-1800, 0", "only the last part has neither"),
        ("20M, 0", "only the last part has neither"),
        ("20M 0800-0800, 0", "is an empty time"),
        ("20M 0860-0900, 0", "0000 to 2359"),
        ("20M 2400-0100, 0", "0000 to 2359"),
        ("20M 0800-2401, 0", "0000 to 2359"),
        ("20M 8-18, 0", "neither hours nor days"),
        ("20M mon-funday, 0", "neither hours nor days"),
        ("20M mon 0800-1800, 0", "nothing comes after"),
        ("20T 0800-1800, 0", "not a valid rate"),
        ("-1 0800-1800, 0", "not a valid rate"),
        ("1.5 0800-1800, 0", "whole number"),
        ("3000G 0800-1800, 0", "from 0 to"),
        ("20M 0800-1800,", "empty part"),
        (", 0", "empty part"),
        ("٢M 0800-1800, 0", "not a valid rate"),
        ("1 mon, " * 20 + "0", "more than 20 parts"),
        ("1 mon" + " " * 600 + ", 0", "longer than"),
        ("20M\n0800-1800\x00, 0", "neither hours nor days"),
    ],
)
def test_nonsense_is_refused_by_name(text: str, problem: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        parse(text)
    assert problem in f"{caught.value.message}"
    assert caught.value.hint


def test_older_forms_are_as_they_were() -> None:
    for value in (None, 0, 512, 512.0, "512", " 512 ", "0.0", ""):
        limits = parse(value)
        assert (limits.rest, limits.changes) == (kib_per_second(value), False)
