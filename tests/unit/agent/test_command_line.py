"""The options of section 1 of the contract, and the sentence for what makes no sense."""

from __future__ import annotations

import pytest
from tests.unit.agent.conftest import Write

from turku.agent import cli
from turku.core.clock import SystemClock
from turku.errors import UsageError


class SleepRecorder(SystemClock):
    def __init__(self) -> None:
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


def test_the_wait_is_a_random_part_of_what_was_asked() -> None:
    clock = SleepRecorder()
    for _ in range(50):
        cli._wait(60, clock)
    assert all(0 <= seconds <= 60 for seconds in clock.slept)
    assert len(set(clock.slept)) > 25
    cli._wait(None, clock)
    assert len(clock.slept) == 50


@pytest.mark.parametrize("wait", ["-1", "soon", "nan", "1e9"])
def test_a_wait_that_is_no_time_is_refused(wait: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.ping_main(["--wait", wait])
    assert ended.value.code == 2
    assert "--wait" in capsys.readouterr().err


def test_a_restore_storage_needs_restore(write: Write) -> None:
    with pytest.raises(UsageError, match="--restore-storage goes with --restore"):
        cli.ping_main(["-c", str(write()), "--restore-storage", "primary"])


@pytest.mark.parametrize("words", [["ping"], ["update-config"], ["check"], []])
def test_every_subcommand_explains_itself(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([*words, "--help"])
    assert ended.value.code == 0
    help_text = capsys.readouterr().out
    assert "usage: turku-agent" in help_text
    if words:
        assert "--config-dir" in help_text


def test_the_programs_of_the_contract_take_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    for run, options in (
        (cli.ping_main, ("--config-dir", "-c", "--wait", "-w", "--debug", "--restore", "--restore-storage NAME")),
        (cli.ping_main, ("--gonogo-program", "--version")),
        (cli.update_config_main, ("--config-dir", "-c", "--wait", "-w", "--debug", "--api-auth-name")),
        (cli.update_config_main, ("--api-auth-secret", "--version")),
    ):
        with pytest.raises(SystemExit):
            run(["--help"])
        text = capsys.readouterr().out
        for option in options:
            assert option in text
