"""The retention floor: what is kept whatever a machine asks for."""

import pytest

from turku.errors import InvalidValue
from turku.policy import floor, retention


def test_the_rules_of_the_source_and_of_every_floor_count_once_each() -> None:
    assert floor.effective("last 1 snapshot", "last 7 days, last 1 snapshot").text == "last 1 snapshot, last 7 days"
    assert floor.effective("last 1 day", None, "", "last 2 days").text == "last 1 day, last 2 days"


@pytest.mark.parametrize("texts", [("",), ("all of it",), ("last 1 day", "all of it"), ("last 1 day", "", "?")])
def test_invalid_rules_are_refused_or_keep_everything(texts: tuple[str, ...]) -> None:
    with pytest.raises(InvalidValue):
        floor.effective(*texts)
    kept = floor.effective(*texts, parse=floor.parse_or_keep_all)
    assert floor.keeps_as_much(floor.KEEP_ALL, kept)


def test_the_widest_rules_have_one_of_each_shape() -> None:
    rules = [retention.parse("last 3 days, earliest of month"), retention.parse("last 9 days, earliest of 2 weeks")]
    assert floor.widest(*rules).text == "last 9 days, earliest of month, earliest of 2 weeks"
