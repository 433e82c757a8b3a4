"""The help of every program fits a terminal of 80 columns."""

from __future__ import annotations

import re

import pytest

from turku.api.project import cli

_WIDTH = 80


def test_the_help_of_the_coordinator_fits(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if len(line) > _WIDTH] == []


def test_the_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["--help"])
    text = capsys.readouterr().out
    for command in ("migrate", "serve", "createsuperuser", "check", *cli._COMMANDS):
        assert re.search(rf"^  {command}\b", text, re.MULTILINE), command
