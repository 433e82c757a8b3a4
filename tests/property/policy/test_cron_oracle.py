"""Cron expressions: croniter, which is slow and knows the same grammar, finds the same moments."""

import hashlib
import time
from datetime import UTC, datetime

from croniter import CroniterBadDateError, croniter
from hypothesis import example, given, settings
from hypothesis import strategies as st

from turku.errors import InvalidValue
from turku.policy.timing import schedule

_LONGEST_GAP_YEARS = 41
_LOWEST_AND_HIGHEST = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


@st.composite
def items(draw: st.DrawFn, index: int) -> str:
    low, high = _LOWEST_AND_HIGHEST[index]
    names = {3: dict(enumerate(_MONTHS, 1)), 4: dict(enumerate(_WEEKDAYS))}.get(index, {})
    first, second = sorted(draw(st.lists(st.integers(low, high), min_size=2, max_size=2, unique=True)))
    step = draw(st.integers(1, 70))
    words = [names.get(number, str(number)) for number in (first, second)]
    forms = ["{0}", "{0}-{1}", "{0}-{1}/{2}", "{0}/{2}", "*/{2}", "{1}-{0}"]
    return draw(st.sampled_from(forms)).format(*words, step)


@st.composite
def fields(draw: st.DrawFn, index: int) -> str:
    low, high = _LOWEST_AND_HIGHEST[index]
    # A drawn day of ours is one that every month has.
    ranged = st.tuples(st.integers(low, high), st.integers(low, high)).filter(lambda pair: pair[0] < pair[1])
    drawn = ranged.map(lambda pair: f"H({pair[0]}-{pair[1]})")
    drawn |= st.tuples(drawn, st.integers(1, 40)).map(lambda pair: f"{pair[0]}/{pair[1]}")
    plain = st.lists(items(index), min_size=1, max_size=3).map(",".join)
    special = {
        2: st.sampled_from(["l", "L", "l,3", "?"]),
        4: st.sampled_from(["l5", "mon#1", "5#5,1#2", "7", "0-7", "5-7"]),
    }
    return draw(st.just("*") | plain | drawn | special.get(index, plain))


@st.composite
def expressions(draw: st.DrawFn) -> str:
    words = [draw(fields(index)) for index in range(5)]
    # With a day of the month besides, croniter makes an intersection of weekdays of certain weeks.
    if "#" in words[4] or words[4].startswith("l"):
        words[2] = "*"
    return " ".join(words)


def oracle(expression: str, start: datetime, identity: str) -> list[datetime]:
    fields = expression.split()
    for index, word in enumerate(fields):
        if word.startswith("H"):
            alone = ["*"] * 5
            alone[index] = word
            hash_id = hashlib.sha256(f"{index}:{identity}".encode()).hexdigest().encode()
            expanded, _weekdays = croniter.expand(" ".join(alone), hash_id=hash_id)
            # Alone, all weekdays are no restriction. Beside a day of the month they are one.
            numbers = range(7) if index == 4 and expanded[index] == ["*"] else expanded[index]
            fields[index] = ",".join(map(str, numbers))
    found = croniter(" ".join(fields), start, ret_type=datetime, max_years_between_matches=_LONGEST_GAP_YEARS)
    return [found.get_next() for _ in range(3)]


@example("* * 1/1 * */3", datetime(2000, 2, 1, tzinfo=UTC), "")
@example("* * 1-31 * */3", datetime(2000, 2, 1, tzinfo=UTC), "")
@example("* * 1-31 * 3", datetime(2000, 2, 1, tzinfo=UTC), "")
@example("* * */2 * 0-6", datetime(2000, 2, 1, tzinfo=UTC), "")
@example("* * 3 * 0-6", datetime(2000, 2, 1, tzinfo=UTC), "")
@example("* * 2 * H(0-6)/1", datetime(2000, 1, 1, tzinfo=UTC), "")
@example("* * H(1-31)/1 * */3", datetime(2000, 2, 1, tzinfo=UTC), "")
@given(
    expressions(),
    st.datetimes(datetime(1990, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC)),
    st.text("abc", max_size=3),
)
@settings(max_examples=400, deadline=None)
def test_it_agrees_with_croniter(expression: str, start: datetime, identity: str) -> None:
    try:
        expected = oracle(expression, start, identity)
    except CroniterBadDateError:
        expected = []
    found, moment = [], start
    try:
        parsed = schedule.parse(f"cron {expression}")
        for _ in range(3):
            moment = parsed.next_after(moment, identity=identity, zone=UTC)
            found.append(moment)
    except InvalidValue:
        found = []
    assert found == expected


_LETTERS = st.text("*/-,HhRrLl#?()0123456789 monsuatefrid", max_size=150)


@given(
    st.builds("cron {}".format, _LETTERS)
    | st.builds("cron {}".format, expressions())
    | st.sampled_from(
        [
            "cron 0 0 30 2 *",
            "cron 0 0 29 2 mon#5",
            "cron 59 23 31 12 *",
            "cron R R R(29-31) 2 *",
            "cron * * 31 2,4,6,9,11 *",
        ]
    )
)
@settings(max_examples=300, deadline=None)
def test_no_expression_is_dear(text: str) -> None:
    begin = time.thread_time()
    try:
        parsed = schedule.parse(text)
        assert parsed.period
        parsed.next_after(datetime(2026, 3, 1, tzinfo=UTC), identity="x", zone=UTC)
    except InvalidValue:
        pass
    assert time.thread_time() - begin < 0.03
