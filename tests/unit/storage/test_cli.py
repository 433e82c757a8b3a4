"""The storage's command lines: the options of the contract, and mistakes in them."""

import argparse
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from turku import __version__
from turku.errors import ConfigurationError, InvalidValue, UsageError
from turku.storage import cli
from turku.storage.commands import setup


@pytest.fixture(autouse=True)
def _process_as_it_was() -> Iterator[None]:
    """The programs set the process's umask and log handlers for good."""
    umask = os.umask(0o022)
    os.umask(umask)
    handlers = list(logging.getLogger().handlers)
    raises = logging.raiseExceptions
    yield
    os.umask(umask)
    logging.getLogger().handlers[:] = handlers
    logging.raiseExceptions = raises


@pytest.mark.parametrize("main", [cli.main, cli.ping_main, cli.update_config_main])
def test_help_and_version_are_shown(main: object, capsys: pytest.CaptureFixture[str]) -> None:
    for option, text in (("--help", "usage:"), ("--version", __version__)):
        with pytest.raises(SystemExit) as ended:
            main([option])  # type: ignore[operator]
        assert ended.value.code == 0
        assert text in capsys.readouterr().out


@pytest.mark.parametrize("option", ["--config-dir", "--wait", "--debug", "--api-auth-name", "--api-auth-secret"])
def test_update_config_has_the_options_of_the_contract(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.update_config_main(["--help"])
    assert option in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [["--wait", "-1"], ["--wait", "soon"], ["--wait", "nan"], ["--unknown"], ["word"]]
)
def test_a_mistake_in_the_command_line_is_a_usage_error(arguments: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        cli.update_config_main(arguments)
    assert "turku-storage-update-config --help" in caught.value.hint


def test_a_registration_by_half_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="go together"):
        cli.update_config_main(["--api-auth-name", "x"])


def test_the_environment_may_give_the_registration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TURKU_API_AUTH_SECRET", "s")
    with pytest.raises(UsageError, match="go together"):
        cli.update_config_main([])


def test_ping_needs_a_uuid() -> None:
    with pytest.raises(UsageError, match="UUID"):
        cli.ping_main([])
    with pytest.raises(InvalidValue, match="not a UUID"):
        cli.ping_main(["../../etc"])


@pytest.mark.parametrize("arguments", [["check"], ["update-config"], ["ping", "9bef0a75-5a9b-43f7-a66a-7e8c6d7ad91d"]])
def test_turku_storage_runs_the_same_programs(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "config.d").mkdir()
    (tmp_path / "config.d" / "x.json").write_text('{"api_url": 3}')
    with pytest.raises(ConfigurationError, match=r"x\.json: api_url"):
        cli.main([*arguments, "--config-dir", str(tmp_path)])


def test_a_relative_directory_is_found_from_anywhere() -> None:
    assert setup.config_dir(argparse.Namespace(config_dir=Path("etc"))).is_absolute()
