"""The benchmarks measure spreads correctly, and the schedules spread."""

import random

import pytest
from bench import schedule_spread
from bench.schedule_spread import FORMS, Form, Spread


def test_an_even_spread_is_flat_and_a_lump_is_not_by_chance() -> None:
    even = Spread((10,) * 100)
    assert (even.peak_to_mean, even.chi_square, even.degrees_of_freedom) == (1.0, 0.0, 99)
    assert even.probability > 0.999
    lump = Spread((60, *(10,) * 94, *(0,) * 5))
    assert lump.peak_to_mean == 6.0
    assert lump.probability < 0.001


def test_random_times_look_like_chance() -> None:
    chance = random.Random(7)
    spreads = [
        schedule_spread.of((chance.random() * 100 for _ in range(2000)), first=0, bins=100, bin_seconds=1)
        for _ in range(200)
    ]
    probabilities = [spread.probability for spread in spreads]
    assert 0.4 < sum(probabilities) / len(probabilities) < 0.6
    peaks = [spread.peak_to_mean / spread.chance_peak_to_mean for spread in spreads]
    assert 0.8 < sum(peaks) / len(peaks) < 1.2


@pytest.mark.parametrize(
    "form", [form for form in FORMS if form.frequency != "hourly"], ids=lambda form: form.frequency
)
def test_sources_spread_over_what_their_schedule_leaves_open(form: Form) -> None:
    spread = schedule_spread.of_form(form, sources=1000, seed=3)
    assert sum(spread.counts) == 1000
    # Sources and seed are fixed: what is found here is found each time.
    assert spread.probability > 0.001
