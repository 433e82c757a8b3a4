"""The machine that a text names."""

import pytest

from turku.policy.machine_choice import chosen

FIRST = "1bef0a75-5a9b-43f7-a66a-7e8c6d7ad91d"
SECOND = "1bef1234-5a9b-43f7-a66a-7e8c6d7ad91d"
THIRD = "cafe0a75-5a9b-43f7-a66a-7e8c6d7ad91d"
MACHINES = {FIRST: ["production-shop-web/2"], SECOND: ["staging-shop-web/2"], THIRD: ["production-shop-db", "testdb"]}


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        (FIRST, [FIRST]),
        (FIRST.upper(), [FIRST]),
        (FIRST.replace("-", ""), [FIRST]),
        ("1bef0a75", [FIRST]),
        ("1BEF0", [FIRST]),
        ("1bef", [FIRST, SECOND]),
        ("1be", []),
        ("production-shop-web/2", [FIRST]),
        ("production-shop-web_2", [FIRST]),
        ("web/2", [FIRST, SECOND]),
        ("shop-web/2", [FIRST, SECOND]),
        ("uction-shop-web/2", [FIRST]),
        ("db", [THIRD]),
        ("stdb", [THIRD]),
        ("2", [FIRST, SECOND]),
        ("shop", []),
        ("Production-shop-web/2", []),
        ("", []),
        ("-", []),
    ],
)
def test_a_text_fits(text: str, fits: list[str]) -> None:
    assert chosen(text, MACHINES) == fits


def test_a_whole_name_comes_before_the_end_of_another() -> None:
    assert chosen("web/2", {**MACHINES, THIRD: ["web/2"]}) == [THIRD]


def test_the_end_from_a_part_on_comes_before_any_other_end() -> None:
    assert chosen("web", {FIRST: ["prod-web"], SECOND: ["prod-cobweb"]}) == [FIRST]


def test_a_name_and_the_beginning_of_a_uuid_both_fit() -> None:
    assert chosen("cafe", {FIRST: ["prod-cafe"], THIRD: ["db"]}) == [FIRST, THIRD]
    assert chosen("cafe", {FIRST: ["cafe"], THIRD: ["db"]}) == [FIRST]


def test_two_of_one_name_both_fit() -> None:
    assert chosen("web", {FIRST: ["web"], SECOND: ["web"], THIRD: []}) == [FIRST, SECOND]
