"""Write manual pages and completions for bash, zsh and fish, made from the argument parsers of all programs.

Usage: describe.py DIRECTORY [TOOLS WHEELS]. TOOLS has argparse-manpage and shtab, and WHEELS has wheels of what turku
requires. Without them, the running Python has all of it. The pages and completions are written below DIRECTORY, in a
directory for each program.
"""

import argparse
import importlib
import os
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SOURCES = Path(__file__).resolve().parents[2] / "src"
_WIDTH = "100"
_PLACES = {
    "man": "usr/share/man/man1/{}.1",
    "bash": "usr/share/bash-completion/completions/{}",
    "zsh": "usr/share/zsh/vendor-completions/_{}",
    "fish": "usr/share/fish/vendor_completions.d/{}.fish",
}
_DIRECTORIES = ("DIR", "DIRECTORY")


@dataclass(frozen=True)
class Described:
    """A program: its module, and the one command that it is, if it is only one."""

    name: str
    module: str
    word: str = ""


PROGRAMS = (
    Described("turku-agent", "turku.agent.cli"),
    Described("turku-agent-ping", "turku.agent.cli", "ping"),
    Described("turku-update-config", "turku.agent.cli", "update-config"),
    Described("turku-storage", "turku.storage.cli"),
    Described("turku-storage-ping", "turku.storage.cli", "ping"),
    Described("turku-storage-update-config", "turku.storage.cli", "update-config"),
    Described("turku-api", "turku.api.cli"),
    Described("turku_auth_create", "turku.api.cli", "auth-create"),
    Described("turku_health", "turku.api.cli", "health"),
    Described("turku_clean_logs", "turku.api.cli", "clean-logs"),
)


def parser_of(program: Described) -> Any:
    """Return the parser of a program, with the commands of Django for turku-api."""
    declared = importlib.import_module(program.module).PROGRAM
    parser = declared.parser(program.word, prog=program.name if program.word else "")
    if program.name == "turku-api":
        _add_commands_of_django(parser)
    return parser


def _add_commands_of_django(parser: Any) -> None:
    from django.core.management import get_commands, load_command_class

    subparsers = next(each for each in parser._actions if isinstance(each, argparse._SubParsersAction))
    for name, application in sorted(get_commands().items()):
        if name not in subparsers.choices and str(application).startswith("django."):
            summary = load_command_class(str(application), name).help or f"The command {name} of Django."
            subparsers.add_parser(name, help=" ".join(str(summary).split()).replace("%", "%%"))


def actions_of(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Yield the arguments and options of a parser and of its subcommands."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                yield from actions_of(each)


def manual_page(parser: Any) -> str:
    """Return the manual page of a program, with its subcommands, examples and exit codes."""
    from argparse_manpage.manpage import Manpage

    from turku import __version__

    summary = parser.description.split(". ")[0].rstrip(".")
    page = Manpage(
        parser,
        {"description": summary, "manual_title": "Turku", "project_name": "turku", "version": __version__},
        format="single-commands-section",
    )
    # The usage is printed by parsers of subcommands, and the ending of the help is a section here.
    parser.epilog = None
    examples = "\n".join(
        f".TP\n{_escaped(purpose)}\n\\fB{_escaped(line.format(prog=parser.prog))}\\fR"
        for purpose, line in parser._examples
    )
    page.add_section("examples", "=", examples)
    page.add_section(
        "exit status",
        "=",
        "\n".join(f".TP\n.B {code}\n{_escaped(meaning)}" for code, meaning in sorted(_exit_codes(parser).items()))
        + "\n.PP\nOther codes name the error that is printed. The pages in /usr/share/doc/turku\\-common/docs/reference"
        " list them.",
    )
    return str(page)


def _exit_codes(parser: Any) -> dict[int, str]:
    from turku.core.cli.arguments import EXIT_CODES

    return {**EXIT_CODES, **parser._exit_codes}


def _escaped(text: str) -> str:
    return text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")


def completion(parser: Any, shell: str) -> str:
    """Return the completion of a program for one shell."""
    import shtab

    for action in actions_of(parser):
        if action.type is Path:
            action.complete = (  # type: ignore[attr-defined]
                shtab.DIRECTORY if str(action.metavar) in _DIRECTORIES else shtab.FILE
            )
    return str(shtab.complete(parser, shell=shell))


def write(directory: Path) -> None:
    """Write the pages and completions of all programs below a directory."""
    for program in PROGRAMS:
        for kind, place in _PLACES.items():
            parser = parser_of(program)
            path = directory / program.name / place.format(program.name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(manual_page(parser) if kind == "man" else completion(parser, kind))


def main(directory: str, tools: str = "", wheels: str = "") -> None:
    """Make what was given importable, and write."""
    os.environ["COLUMNS"] = _WIDTH
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "turku.api.project.settings")
    with tempfile.TemporaryDirectory() as unpacked:
        for wheel in Path(wheels).rglob("*.whl") if wheels else ():
            zipfile.ZipFile(wheel).extractall(unpacked)
        sys.path[:0] = [str(SOURCES), unpacked, *([tools] if tools else [])]
        import django

        django.setup()
        write(Path(directory))


if __name__ == "__main__":
    main(*sys.argv[1:])
