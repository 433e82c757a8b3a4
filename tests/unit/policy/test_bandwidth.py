"""Bandwidth limits as people and older agents write them."""

from __future__ import annotations

from typing import Any

import pytest

from turku.errors import PolicyError
from turku.policy.bandwidth import kib_per_second


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
    with pytest.raises(PolicyError) as caught:
        kib_per_second(value)
    assert "KiB/s" in caught.value.hint


def test_numbers_too_long_to_print_are_refused() -> None:
    for value in (10**5000, -(10**5000)):
        with pytest.raises(PolicyError):
            kib_per_second(value)
