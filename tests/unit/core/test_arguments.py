"""Command lines: options may stand anywhere before ``--``, and what does not parse is told like every other error."""

import argparse

import pytest

from turku.core.cli.arguments import Parser, number
from turku.errors import UsageError


def test_a_mistake_is_a_usage_error_with_the_usage_as_its_hint() -> None:
    parser = Parser(prog="turku-thing")
    parser.add_argument("--wait", type=number("seconds", 60))
    with pytest.raises(UsageError, match=r"turku-thing: unrecognized arguments: --frob") as refused:
        parser.parse_args(["--frob"])
    assert refused.value.hint == "usage: turku-thing [-h] [--wait WAIT]; --help tells more"


def test_a_mistake_is_not_buried_under_a_long_usage() -> None:
    parser = Parser(prog="turku-thing")
    for number_of_option in range(20):
        parser.add_argument(f"--option-{number_of_option}")
    with pytest.raises(UsageError) as refused:
        parser.parse_args(["--frob"])
    assert refused.value.hint == "turku-thing --help shows every option"


def test_a_subcommand_reports_mistakes_in_the_same_way() -> None:
    parser = Parser(prog="turku-thing")
    parser.add_subparsers(required=True, metavar="COMMAND").add_parser("check").add_argument("name")
    with pytest.raises(UsageError, match="turku-thing check: the following arguments are required: name"):
        parser.parse_args(["check"])


@pytest.mark.parametrize("text", ["soon", "-1", "61", "nan", "inf", ""])
def test_seconds_out_of_range_are_refused_in_words(text: str) -> None:
    parser = Parser(prog="turku-thing")
    parser.add_argument("--wait", type=number("seconds", 60))
    with pytest.raises(UsageError, match="is not a number of seconds from 0 to 60"):
        parser.parse_args([f"--wait={text}"])


def test_seconds_in_range_are_a_number() -> None:
    assert number("seconds", 60)("2.5") == 2.5


@pytest.fixture
def parser() -> Parser:
    parser = Parser(prog="turku")
    commands = parser.add_subparsers(required=True)
    commands.add_parser("list").add_argument("source")
    commands.add_parser("show")
    restore = commands.add_parser("restore")
    restore.add_argument("source")
    restore.add_argument("paths", nargs="*")
    place = restore.add_mutually_exclusive_group()
    place.add_argument("--to")
    place.add_argument("--in-place", action="store_true")
    restore.add_argument("--yes", "-y", action="store_true")
    return parser


def parsed(parser: Parser, line: str) -> tuple[str, list[str], str | None, bool, bool]:
    found: argparse.Namespace = parser.parse_args(line.split(","))
    return found.source, found.paths, found.to, found.in_place, found.yes


@pytest.mark.parametrize(
    ("line", "paths"),
    [
        ("restore,src,--to,D", []),
        ("restore,src,--to,D,P", ["P"]),
        ("restore,src,P,--to,D,Q", ["P", "Q"]),
        ("restore,--to=D,src,P,Q", ["P", "Q"]),
        ("restore,src,--to,D,--,-rf", ["-rf"]),
        ("restore,src,P,--to,D,--,--yes,--,x", ["P", "--yes", "--", "x"]),
        ("restore,--to,D,--,src,-rf", ["-rf"]),
        ("restore,src,--to,D,-", ["-"]),
        ("restore,src,--to,D,--,--", ["--"]),
        ("restore,src,- exclude,--to,D", ["- exclude"]),
    ],
)
def test_options_stand_where_people_put_them(parser: Parser, line: str, paths: list[str]) -> None:
    assert parsed(parser, line) == ("src", paths, "D", False, False)


def test_options_behind_paths_are_options(parser: Parser) -> None:
    assert parsed(parser, "restore,src,P,--in-place,-y") == ("src", ["P"], None, True, True)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("restore,src,P,--bogus,Q", "--bogus"),
        ("restore,--to,D", "source"),
        ("restore", "source"),
        ("restore,src,--to", "--to"),
        ("restore,src,--to,D,--in-place", "not allowed"),
        ("restore,src,-rf", "-rf"),
        ("restore,src,P,--bogus,Q", "usage: turku restore [-h] [--to TO | --in-place]"),
        ("list,src,P,Q", "turku list: unrecognized arguments: P Q "),
        ("list,src,--,-P", "turku list: unrecognized arguments: -P "),
        ("show,--bogus", "turku show: unrecognized arguments: --bogus usage: turku show "),
        ("show,P", "turku show: unrecognized arguments: P usage: turku show "),
    ],
)
def test_a_mistake_is_named(parser: Parser, line: str, said: str) -> None:
    with pytest.raises(UsageError) as raised:
        parser.parse_args(line.split(","))
    assert said in f"{raised.value.message} {raised.value.hint}"


def test_a_required_option_is_required_anywhere() -> None:
    parser = Parser(prog="turku")
    parser.add_argument("source")
    parser.add_argument("--name", required=True)
    assert parser.parse_args(["src", "--name", "x"]).name == "x"
    with pytest.raises(UsageError, match="--name"):
        parser.parse_args(["src"])


def test_help_names_all_arguments(parser: Parser, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser.parse_args(["restore", "src", "--help"])
    assert "paths" in capsys.readouterr().out
