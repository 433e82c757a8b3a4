"""Every ``--help`` fits into 80 columns, has the same sections, three examples, and sentences for help texts."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import pytest
from django.core.management import get_commands, load_command_class

import turku.agent.cli
import turku.storage.cli
from turku.agent.commands import ping as agent_ping
from turku.agent.commands import update_config as agent_update_config
from turku.api.project import serve
from turku.core.cli.arguments import Parser
from turku.storage.commands import ping as storage_ping
from turku.storage.commands import update_config as storage_update_config

SECTIONS = ("Arguments:", "Commands:", "Options:", "Common options:", "Examples:", "Exit codes:")


def with_subcommands(parser: Parser) -> Iterator[Parser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from with_subcommands(below)


def of_the_coordinator() -> Iterator[Parser]:
    for name, app in get_commands().items():
        if str(app).startswith("turku."):
            yield from with_subcommands(load_command_class(app, name).create_parser("turku-api", name))


AGENT, STORAGE = turku.agent.cli, turku.storage.cli
PARSERS = [
    *with_subcommands(AGENT.PROGRAM.parser(AGENT._add_common)),
    *with_subcommands(STORAGE._program().parser(STORAGE._add_common)),
    *of_the_coordinator(),
    serve.parser(),
    agent_ping.COMMAND.parser("turku-agent-ping", AGENT._add_common),
    agent_update_config.COMMAND.parser("turku-update-config", AGENT._add_common),
    storage_ping.COMMAND.parser("turku-storage-ping", STORAGE._add_common),
    storage_update_config.COMMAND.parser("turku-storage-update-config", STORAGE._add_common),
]


@pytest.fixture(params=PARSERS, ids=lambda parser: parser.prog)
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Parser:
    monkeypatch.setenv("COLUMNS", "80")
    chosen: Parser = request.param
    return chosen


def test_it_fits_into_80_columns(parser: Parser) -> None:
    assert [line for line in parser.format_help().splitlines() if len(line) > 80] == []


def test_its_sections_come_in_one_order(parser: Parser) -> None:
    headings = [line for line in parser.format_help().splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert headings == [section for section in SECTIONS if section in headings]
    assert {"Common options:", "Examples:", "Exit codes:"} <= set(headings)


def test_it_has_three_examples_of_itself(parser: Parser) -> None:
    lines = parser.format_help().partition("\nExamples:\n")[2].partition("\n\n")[0].splitlines()
    assert len(lines) == 6
    assert all(line.startswith("  ") and line.endswith(":") for line in lines[::2])
    assert all(line.startswith("    ") and parser.prog in line for line in lines[1::2])


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
        assert declared("turku-agent", name) - {"--unfinished"} == declared("turku-storage", name) - {"--machine"}
