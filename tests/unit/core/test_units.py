"""Sizes and durations as people read them."""

from datetime import timedelta

import pytest

from turku.core import units


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (1024**2 * 250, "250 MiB"),
        (1024**6, "1.0 EiB"),
        (3e7 * 1024**2, "28.6 TiB"),
    ],
)
def test_sizes(size_bytes: int, text: str) -> None:
    assert units.size(size_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-2, "0 s"), (0.6, "1 s"), (59.4, "59 s"), (400, "6 min 40 s"), (4000, "1 h 6 min"), (200_000, "55 h 33 min")],
)
def test_durations_have_two_units(seconds: float, words: str) -> None:
    assert units.duration(timedelta(seconds=seconds)) == words


@pytest.mark.parametrize(
    ("minutes", "words"), [(0.5, "a moment"), (1, "1 min"), (190, "3 h"), (1800, "30 h"), (13000, "9 d")]
)
def test_rough_durations_have_one_unit(minutes: float, words: str) -> None:
    assert units.rough_duration(timedelta(minutes=minutes)) == words
