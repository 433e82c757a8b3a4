"""The page of commands has every program, subcommand and option that --help shows, and no other."""

import re
from collections.abc import Callable, Sequence

import pytest
from tests.support import markdown

import turku.agent.cli
import turku.api.cli
import turku.demo.cli
import turku.storage.cli

PAGE = "docs/reference/commands.md"
PROGRAMS: list[tuple[str, Callable[[Sequence[str]], object], list[str]]] = [
    ("turku-agent-ping", turku.agent.cli.ping_main, []),
    ("turku-update-config", turku.agent.cli.update_config_main, []),
    ("turku-storage-update-config", turku.storage.cli.update_config_main, []),
    ("turku-storage-ping", turku.storage.cli.ping_main, []),
    ("turku", turku.demo.cli.main, ["demo"]),
]
EVERYWHERE = {"--help", "--version"}


def help_text(
    main: Callable[[Sequence[str]], object], arguments: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> str:
    with pytest.raises(SystemExit):
        main([*arguments, "--help"])
    return capsys.readouterr().out


def options(text: str) -> set[str]:
    """The long options in a help text's list of options."""
    return set(re.findall(r"^  (?:-\w, )?(--[a-z-]+)", text, re.MULTILINE)) - EVERYWHERE


def subcommands(text: str) -> set[str]:
    listed = text.partition("\nCommands:\n")[2].partition("\n\n")[0]
    return set(re.findall(r"^  ([a-z-]+)(?:\s|$)", listed, re.MULTILINE))


def described_options(text: str) -> set[str]:
    return {match for row in markdown.table(text) for match in re.findall(r"(?<![\w-])(--[a-z-]+)", row.cells[0])}


def described_subcommands(text: str) -> set[str]:
    return {row.key for row in markdown.table(text) if not row.key.startswith("-")}


@pytest.mark.parametrize(("program", "main", "arguments"), PROGRAMS, ids=[program[0] for program in PROGRAMS])
def test_every_option_is_described_and_nothing_else_is(
    program: str, main: Callable[[Sequence[str]], object], arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    shown = options(help_text(main, arguments, capsys))
    assert shown
    assert described_options(markdown.section(PAGE, program)) == shown


@pytest.mark.parametrize(
    ("program", "main"), [("turku-agent", turku.agent.cli.main), ("turku-storage", turku.storage.cli.main)]
)
def test_every_subcommand_is_described_and_nothing_else_is(
    program: str, main: Callable[[Sequence[str]], object], capsys: pytest.CaptureFixture[str]
) -> None:
    shown = subcommands(help_text(main, [], capsys))
    assert shown
    assert described_subcommands(markdown.section(PAGE, program).partition("###")[0]) == shown


def test_every_command_of_the_coordinator_is_described(capsys: pytest.CaptureFixture[str]) -> None:
    ours = subcommands(help_text(turku.api.cli.PROGRAM.main, [], capsys))
    assert described_subcommands(markdown.section(PAGE, "turku-api").partition("### ")[0]) == ours | {"migrate"}


def test_every_option_of_a_command_of_the_coordinator_is_described(capsys: pytest.CaptureFixture[str]) -> None:
    section = markdown.section(PAGE, "turku-api")
    parts = dict(re.findall(r"^### Options of ([a-z-]+)$(.*?)(?=^### |\Z)", section, re.MULTILINE | re.DOTALL))
    main, shown = turku.api.cli.PROGRAM.main, {}
    for name in subcommands(help_text(main, [], capsys)):
        text = help_text(main, [name], capsys)
        shown[name] = options(text).union(
            *(options(help_text(main, [name, below], capsys)) for below in subcommands(text))
        )
    assert {name: described_options(text) for name, text in parts.items()} == {
        name: found for name, found in shown.items() if found
    }


def test_every_installed_program_is_described() -> None:
    import tomllib

    scripts = tomllib.loads((markdown.REPOSITORY / "pyproject.toml").read_text())["project"]["scripts"]
    text = (markdown.REPOSITORY / PAGE).read_text()
    assert {name for name in scripts if f"`{name}" not in text} == set()
