"""The warnings about a machine's sources before the coordinator sees them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from turku.agent import cli, registration
from turku.agent.config import loading as configuration

TEXT = """{
  "etc": {"path": "/etc"},
  "vault": {
    "path": "/srv/a\\tb",
    "exclude": %s
  },
  "%s": {"comment": "no path"}
}"""


@pytest.fixture
def directory(write: Callable[..., Path]) -> Path:
    directory = write(api_url="http://127.0.0.1:1/v1")
    entries = "[" + ", ".join(['"x"'] * 3000) + "]"
    (directory / "sources.d/sources.json").unlink()
    (directory / "sources.d/a.json").write_text(TEXT % (entries, "pathless"))
    return directory


def test_problems_have_file_line_and_key(directory: Path) -> None:
    place = f"{directory}/sources.d/a.json, line 3: vault"
    assert list(registration.source_problems(configuration.load(directory))) == [
        f"{place}: path: has control characters (back up the directory above it)",
        f"{place}: exclude: has more than 2000 entries (one pattern with * or a filter set stands for many)",
    ]


BAD = {
    "relative": {"path": "etc"},
    "../up": {"path": "/etc"},
    "word": "/etc",
    "ETC": {"path": "/srv/etc"},
    "lines": {"path": "/srv/a\nb"},
}


def test_a_source_that_cannot_be_used_keeps_no_other_out(
    write: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    agent = configuration.load(write(sources={"etc": {"path": "/etc"}, **BAD, "home": {"path": "/home"}}))
    assert list(agent.sources) == ["etc", "home"]
    assert set(agent.unusable_sources) == set(BAD)
    assert "differs from etc only by case" in agent.unusable_sources["ETC"]
    for name, reason in agent.unusable_sources.items():
        assert f"sources.d/sources.json, line 1: {name}: " in reason
        assert reason in caplog.text


def test_check_names_the_sources_that_cannot_be_used(
    write: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["check", "--offline", "--config-dir", str(write(sources={"etc": {"path": "/etc"}, **BAD}))]) == 1
    assert capsys.readouterr().out.count("PROBLEM: ") == len(BAD)


def test_a_source_without_a_path_is_reported_with_its_line(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    configuration.load(directory)
    assert f"{directory}/sources.d/a.json, line 7: pathless: is not a source, because it has no path" in caplog.text


def test_a_file_that_is_not_read_is_reported(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    (directory / "sources.d/home.jsn").write_text("{}")
    (directory / "config.d/machine.conf").write_text("{}")
    configuration.load(directory)
    assert f"{directory}/sources.d/home.jsn: is not read" in caplog.text
    assert f"{directory}/config.d/machine.conf: is not read" in caplog.text


def test_check_counts_them_and_a_path_that_no_system_takes_ends_it_with_no_traceback(
    write: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    directory = write(sources={"long": {"path": "/srv/" + "x" * 300}})
    assert cli.main(["check", "--offline", "--config-dir", str(directory)]) == 1
    said = capsys.readouterr().out
    assert "PROBLEM: path: has a part of more than 255 bytes" in said
    assert "line 1: long" in said
