"""The options of the existing system's commands, and the sentence for what makes no sense."""

import pytest
from tests.unit.agent.conftest import Write

from turku.agent import cli
from turku.agent.commands import browse, setup
from turku.core.clock import SystemClock
from turku.errors import UsageError
from turku.protocol.restore_messages import SnapshotChoice


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("20261130", SnapshotChoice("20261130")),
        ("20261130-120234", SnapshotChoice("20261130-120234")),
        ("1a2b", SnapshotChoice("1a2b")),
        ("latest", SnapshotChoice()),
        ("2026-11-30", SnapshotChoice(at="2026-11-30")),
        ("3 days ago", SnapshotChoice(at="3 days ago")),
    ],
)
def test_the_date_in_a_snapshots_name_is_a_part_of_the_name_and_no_time(text: str, choice: SnapshotChoice) -> None:
    assert browse._name_or_time(text) == choice


class SleepRecorder(SystemClock):
    def __init__(self) -> None:
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


def test_the_wait_is_a_random_part_of_what_was_asked() -> None:
    clock = SleepRecorder()
    for _ in range(50):
        setup.wait(60, clock)
    assert all(0 <= seconds <= 60 for seconds in clock.slept)
    assert len(set(clock.slept)) > 25
    setup.wait(0, clock)
    assert len(clock.slept) == 50


@pytest.mark.parametrize("wait", ["-1", "soon", "nan", "1e9"])
def test_a_wait_that_is_no_time_is_refused(wait: str) -> None:
    with pytest.raises(UsageError, match=f"--wait.*'{wait}' is not a number of seconds"):
        cli.ping_main(["--wait", wait])


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


def test_check_finds_what_the_coordinator_would_refuse(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    directory = write(
        sources={
            "etc": {"path": "/etc", "frequency": "dayly", "filter": "- *.tmp", "bwlimit": "fast", "frequenzy": "daily"}
        }
    )
    assert cli.main(["check", "--offline", "--config-dir", str(directory)]) == 1
    shown = capsys.readouterr().out
    assert "PROBLEM: frequency: 'dayly' is not a valid frequency; did you mean daily?" in shown
    assert "PROBLEM: filter: must be a list of texts" in shown
    assert "PROBLEM: bwlimit: " in shown
    assert "note: frequenzy: unknown option, sent as it is; did you mean frequency?" in shown


def test_check_has_nothing_against_what_is_lawful(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    options = {
        "path": "/etc",
        "frequency": "cron H H * * *",
        "retention": "last 5 days, earliest of month",
        "filter": ["merge caches", "- *.tmp"],
        "exclude": ["/lost+found"],
        "bwlimit": 1000,
        "snapshot_mode": "none",
        "shared_service": True,
        "comment": None,
    }
    assert cli.main(["check", "--offline", "--config-dir", str(write(sources={"etc": options}))]) == 0
    assert "PROBLEM" not in capsys.readouterr().out
