"""The one table of a source's options."""

from typing import Any

import pytest

from turku.policy import snapshot_mode, source_options
from turku.policy.source_options import ENTRIES_LIMIT, OPTIONS, SOURCES_LIMIT, problems
from turku.storage.snapshots import MODES


def said(**options: Any) -> list[str]:
    return [str(problem) for problem in problems({"path": "/etc", **options})]


def test_every_default_is_lawful() -> None:
    lawful = {name: option.default for name, option in OPTIONS.items() if option.default not in (None, "")}
    assert said(**lawful) == []
    assert said(**{name: None for name in OPTIONS if name != "path"}) == []
    assert [str(each) for each in problems({})] == ["path: is required"]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"path": "/a\tb"}, "path: has control characters"),
        ({"path": "/srv/" + "x" * 256}, "path: has a part of more than 255 bytes"),
        ({"path": "/srv/" + "ä" * 128}, "path: has a part of more than 255 bytes"),
        ({"path": "/" + "x/" * 2000 + "x"}, "path: is longer than 4000 characters"),
        ({"path": "/" + "ä/" * 1500}, "path: is longer than 4095 bytes"),
        ({"path": "etc"}, "path: 'etc' is not an absolute path"),
        ({"path": 7}, "path: must be text"),
        ({"exclude": ["x"] * 3000}, "exclude: has more than 2000 entries"),
        ({"filter": ["- x"] * 3000}, "filter: has more than 2000 entries"),
        ({"filter": [". /etc/passwd", ": .rules"]}, "filter: "),
        ({"frequency": "daily" + " " * 1000}, "frequency: is longer than 1000 characters"),
        ({"frequency": "whenever"}, "frequency: "),
        ({"retention": "a week"}, "retention: "),
        ({"bwlimit": "fast"}, "bwlimit: "),
        ({"comment": "a\nb"}, "comment: "),
        ({"comment": "x" * 201}, "comment: "),
        ({"snapshot_mode": "magic"}, "snapshot_mode: must be one of: link-dest"),
        ({"compress": "sometimes"}, "compress: must be one of"),
        ({"compare_contents": "yes"}, "compare_contents: must be true or false"),
        ({"expects_mount": 1}, "expects_mount: must be true or false"),
        ({"colour": "x" * 70_000}, "unknown options: together larger than 65536 bytes"),
        ({"colour": 10**30}, "unknown options: "),
    ],
)
def test_a_mistake_is_named_with_the_option(options: dict[str, Any], problem: str) -> None:
    [found] = said(**options)
    assert found.startswith(problem)


@pytest.mark.parametrize(
    "options",
    [
        {"path": "/srv/" + "x" * 255},
        {"exclude": ["x"] * ENTRIES_LIMIT},
        {"filter": ["merge any", "- *.tmp"]},
        {"comment": ""},
        {"colour": {"deep": [1, None, "x"]}},
        {"compress": False},
    ],
)
def test_lawful_options_pass(options: dict[str, Any]) -> None:
    assert said(**options) == []


def test_sources_are_counted_together() -> None:
    assert list(source_options.problems_together({})) == []
    many = {f"s{number}": {"path": "/x"} for number in range(SOURCES_LIMIT + 1)}
    assert list(source_options.problems_together(many)) == ["has more than 1000 sources"]
    long = {f"s{number}": {"exclude": ["x"] * 2000} for number in range(51)}
    assert list(source_options.problems_together(long)) == [
        "has more than 100000 filter rules and exclude entries together"
    ]


def test_a_misspelt_name_is_reported_with_the_one_that_may_be_meant() -> None:
    assert list(source_options.unknown_names({"exclud": [], "path": "/x", "colour": 1})) == [
        ("exclud", "exclude"),
        ("colour", ""),
    ]


def test_the_modes_are_those_of_storages() -> None:
    assert sorted(snapshot_mode.NAMES) == sorted([*MODES, snapshot_mode.AUTO])
