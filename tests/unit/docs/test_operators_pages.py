"""The commands that the pages for operators show parse as they are."""

import re
import shlex

import pytest
from tests.support import markdown

import turku.agent.cli
import turku.api.cli
import turku.storage.cli
from turku.core.cli.program import Program

PAGES = ("docs/howto/machines-and-storages.md", "docs/howto/versions.md")
PROGRAMS: dict[str, Program] = {
    each.name: each for each in (turku.api.cli.PROGRAM, turku.storage.cli.PROGRAM, turku.agent.cli.PROGRAM)
}


def commands(page: str) -> list[str]:
    """Each of our commands in the page's blocks and in its text."""
    text = (markdown.REPOSITORY / page).read_text()
    shown = re.findall(r"^# (turku-[^|\n]*)", text, re.MULTILINE) + re.findall(r"`(turku-[a-z]+ [^`]+)`", text)
    return [each for each in shown if each.split()[0] in PROGRAMS and "MACHINE" not in each]


@pytest.mark.parametrize("page", PAGES)
def test_a_shown_command_parses(page: str) -> None:
    found = commands(page)
    assert len(found) >= 3
    for line in found:
        program, *words = shlex.split(line)
        PROGRAMS[program].parser().parse_args([word for word in words if word])
