"""Every ``--help`` fits into 80 columns, has the same sections, three examples that parse, and sentences."""

import argparse
import importlib
import shlex
from collections.abc import Iterator

import pytest
from django.core.management import get_commands, load_command_class

import turku.agent.cli
import turku.api.cli
import turku.demo.cli
import turku.storage.cli
from turku.core.cli.arguments import Parser
from turku.core.cli.program import Program

SECTIONS = ("Arguments:", "Commands:", "Options:", "Common options:", "Examples:", "Exit codes:")


def with_subcommands(parser: Parser) -> Iterator[Parser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from with_subcommands(below)


AGENT, STORAGE, API = turku.agent.cli.PROGRAM, turku.storage.cli.PROGRAM, turku.api.cli.PROGRAM
PROGRAMS = {each.name: each for each in (AGENT, STORAGE, API, turku.demo.cli.PROGRAM)}
PARSERS = [
    *(parser for program in PROGRAMS.values() for parser in with_subcommands(program.parser())),
    AGENT.parser("ping", prog="turku-agent-ping"),
    AGENT.parser("update-config", prog="turku-update-config"),
    STORAGE.parser("ping", prog="turku-storage-ping"),
    STORAGE.parser("update-config", prog="turku-storage-update-config"),
]
COMPLETE = {parser.prog: parser for parser in PARSERS if " " not in parser.prog}
"""The parser of each installed program."""


@pytest.fixture(params=PARSERS, ids=lambda parser: parser.prog)
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Parser:
    monkeypatch.setenv("COLUMNS", "80")
    chosen: Parser = request.param
    return chosen


def test_it_fits_into_80_columns(parser: Parser) -> None:
    assert [line for line in parser.format_help().splitlines() if len(line) > 80] == []


def test_it_breaks_no_name_at_a_hyphen(parser: Parser) -> None:
    assert [line for line in parser.format_help().splitlines() if line.endswith("-")] == []


def test_its_sections_come_in_one_order(parser: Parser) -> None:
    headings = [line for line in parser.format_help().splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert headings == [section for section in SECTIONS if section in headings]
    assert {"Common options:", "Examples:", "Exit codes:"} <= set(headings)


def examples(parser: Parser) -> list[tuple[str, str]]:
    """Sentences and command lines of the section with examples."""
    lines = parser.format_help().partition("\nExamples:\n")[2].partition("\n\n")[0].splitlines()
    return list(zip(lines[::2], lines[1::2], strict=True))


def commands(line: str) -> list[list[str]]:
    """The words of each of Turku's commands on a shell's command line, without the files to which it is redirected."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    parts: list[list[str]] = [[]]
    for word in lexer:
        if set(word) <= set("&|<>"):
            parts.append([])
        else:
            parts[-1].append(word)
    # Words such as "ssh HOST" and "VARIABLE=1" may stand before a program.
    named = [[word.removeprefix("/usr/local/bin/") for word in part] for part in parts]
    starts = [next((at for at, word in enumerate(part) if word in COMPLETE), None) for part in named]
    return [part[start:] for part, start in zip(named, starts, strict=True) if start is not None]


def test_it_has_three_examples_of_itself(parser: Parser) -> None:
    found = examples(parser)
    assert len({line for _purpose, line in found}) == 3
    for purpose, line in found:
        assert purpose.startswith("  ")
        assert purpose.endswith(":")
        assert line.startswith("    ")
        assert parser.prog in (" ".join(words)[: len(parser.prog)] for words in commands(line)), line


def test_its_examples_parse(parser: Parser) -> None:
    for _purpose, line in examples(parser):
        for program, *words in commands(line):
            if program == API.name and words[0] in get_commands():
                django = load_command_class(get_commands()[words[0]], words[0])
                django.create_parser(program, words[0]).parse_args(words[1:])
            else:
                COMPLETE[program].parse_args(words)


def test_its_texts_are_sentences(parser: Parser) -> None:
    texts = [parser.description or "", *(action.help or "" for action in parser._actions if action.help)]
    texts += [
        action.help or ""
        for group in parser._actions
        if isinstance(group, argparse._SubParsersAction)
        for action in group._get_subactions()
    ]
    for text in texts:
        assert text[0].isupper(), text
        assert text.endswith("."), text


def test_the_commands_of_browsing_take_the_same_on_both_sides() -> None:
    def declared(side: str, name: str) -> set[str]:
        [found] = [parser for parser in PARSERS if parser.prog == f"{side} {name}"]
        return {" ".join(action.option_strings) or str(action.metavar) for action in found._actions}

    for name in ("snapshots", "ls", "versions", "find", "diff"):
        assert declared("turku-agent", name) - {"--unfinished", "--storage"} == declared("turku-storage", name) - {
            "--machine"
        }


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=lambda program: program.name)
def test_the_table_of_modules_names_the_commands_of_each(program: Program) -> None:
    for module, names in program.modules.items():
        declared = importlib.import_module(f"{program.package}.{module}").COMMANDS
        assert [each.name for each in declared] == list(names)


@pytest.mark.parametrize(("program", "limit"), [(AGENT, 10_000), (STORAGE, None)], ids=["agent", "storage"])
def test_only_the_listings_of_the_agent_have_a_limit_by_default(program: Program, limit: int | None) -> None:
    for command in (["snapshots"], ["ls", "etc"], ["versions", "etc", "x"], ["find", "etc", "x"], ["diff", "etc", "a"]):
        assert program.parser(command[0]).parse_args(command).limit == limit
