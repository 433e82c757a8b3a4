"""Command lines that do not parse are told like every other error."""

from __future__ import annotations

import pytest

from turku.core.arguments import Parser, seconds
from turku.errors import UsageError


def test_a_mistake_is_a_usage_error_with_the_usage_as_its_hint() -> None:
    parser = Parser(prog="turku-thing")
    parser.add_argument("--wait", type=seconds(60))
    with pytest.raises(UsageError, match=r"turku-thing: unrecognized arguments: --frob") as refused:
        parser.parse_args(["--frob"])
    assert refused.value.hint == "usage: turku-thing [-h] [--wait WAIT]; --help tells more"


def test_a_subcommand_tells_mistakes_in_the_same_way() -> None:
    parser = Parser(prog="turku-thing")
    parser.add_subparsers(required=True, metavar="COMMAND").add_parser("check").add_argument("name")
    with pytest.raises(UsageError, match="turku-thing check: the following arguments are required: name"):
        parser.parse_args(["check"])


@pytest.mark.parametrize("text", ["soon", "-1", "61", "nan", "inf", ""])
def test_seconds_out_of_range_are_refused_in_words(text: str) -> None:
    parser = Parser(prog="turku-thing")
    parser.add_argument("--wait", type=seconds(60))
    with pytest.raises(UsageError, match="is no number of seconds from 0 to 60"):
        parser.parse_args([f"--wait={text}"])


def test_seconds_in_range_are_a_number() -> None:
    assert seconds(60)("2.5") == 2.5
