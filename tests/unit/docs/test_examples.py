"""Every example is taken, and every invalid one refused with the message it tells."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.support.markdown import REPOSITORY

import turku.agent.config.loading
import turku.storage.config.loading
from turku.agent.config.model import AgentConfig
from turku.api.backups import declaration
from turku.api.configuration import environment
from turku.api.request.message_errors import MessageErrors
from turku.errors import ConfigurationError
from turku.policy import source_options
from turku.storage.config.model import StorageConfig

EXAMPLES = REPOSITORY / "examples"


def directories(below: Path) -> list[Path]:
    return sorted(path for path in below.iterdir() if path.is_dir())


def private_copy(example: Path, tmp_path: Path, **lower: Any) -> Path:
    """Copy the example, with its state where a test may write. ``lower`` are the values that a host knows itself."""
    directory = tmp_path / "etc"
    shutil.copytree(example, directory)
    (directory / "config.d" / "00-host.json").write_text(json.dumps(lower))
    overlay: dict[str, Any] = {}
    if not any('"state"' in path.read_text() for path in directory.glob("config.d/*")):
        overlay = {"var_dir": str(tmp_path / "state")}
    (directory / "config.d" / "zz-test.json").write_text(json.dumps(overlay))
    return directory


def load_agent(directory: Path) -> AgentConfig:
    return turku.agent.config.loading.load(directory)


def load_storage(directory: Path) -> StorageConfig:
    return turku.storage.config.loading.load(directory)


HOST = {"name": "host.example.com", "secret": "s" * 30, "ssh_ping_host": "host.example.com"}


@pytest.mark.parametrize("example", directories(EXAMPLES / "agent"), ids=lambda path: path.name)
def test_an_agent_example_is_taken(example: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    agent = load_agent(private_copy(example, tmp_path))
    assert agent.sources
    assert not caplog.records, "an example has no unknown key"


@pytest.mark.django_db
@pytest.mark.parametrize("example", directories(EXAMPLES / "agent"), ids=lambda path: path.name)
def test_the_sources_of_an_agent_example_are_taken_by_the_coordinator(example: Path, tmp_path: Path) -> None:
    from turku.api.fleet.models import FilterSet

    FilterSet.objects.create(name="caches", rules=["- .cache/"])
    faults = MessageErrors()
    agent = load_agent(private_copy(example, tmp_path))
    declared = declaration.check({name: source.options for name, source in agent.sources.items()}, {}, faults)
    faults.raise_if_any()
    assert set(declared) == set(agent.sources)
    # Limits by time of day are kept there, as they were sent.
    kept = {"bwlimit", *(name for name, option in source_options.OPTIONS.items() if not option.has_column)}
    assert {option for columns in declared.values() for option in columns["other_options"]} <= kept


@pytest.mark.parametrize("example", directories(EXAMPLES / "storage"), ids=lambda path: path.name)
def test_a_storage_example_is_taken(example: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    storage = load_storage(private_copy(example, tmp_path, **HOST))
    assert storage.disk.volumes
    assert storage.api.registration
    assert not caplog.records, "an example has no unknown key"


def refused(load: Any, example: Path, tmp_path: Path, **host: Any) -> None:
    expected = (example / "expected.txt").read_text().splitlines()
    directory = private_copy(example, tmp_path, **host)
    (directory / "expected.txt").unlink()
    with pytest.raises(ConfigurationError) as caught:
        load(directory)
    for sentence in expected:
        assert sentence in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("example", directories(EXAMPLES / "invalid" / "agent"), ids=lambda path: path.name)
def test_an_invalid_agent_example_is_refused_as_it_says(example: Path, tmp_path: Path) -> None:
    refused(load_agent, example, tmp_path)


@pytest.mark.parametrize("example", directories(EXAMPLES / "invalid" / "storage"), ids=lambda path: path.name)
def test_an_invalid_storage_example_is_refused_as_it_says(example: Path, tmp_path: Path) -> None:
    refused(load_storage, example, tmp_path, **HOST)


def variables(path: Path) -> dict[str, str]:
    """Return the variables as systemd reads an environment file. None of the examples quotes."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


@pytest.mark.parametrize("path", sorted((EXAMPLES / "api").iterdir()), ids=lambda path: path.name)
def test_an_environment_is_taken(path: Path) -> None:
    assert environment.read(variables(path)).errors == ()


@pytest.mark.parametrize("path", sorted((EXAMPLES / "invalid" / "api").iterdir()), ids=lambda path: path.name)
def test_an_invalid_environment_is_refused_as_it_says(path: Path) -> None:
    mark = "# refused: "
    (expected,) = [line.removeprefix(mark) for line in path.read_text().splitlines() if line.startswith(mark)]
    (mistake,) = environment.read(variables(path)).errors
    assert f"{mistake.id}: {mistake.message}".startswith(expected)
    assert mistake.hint


def test_every_mistake_of_the_environment_has_an_example() -> None:
    import re

    source = (REPOSITORY / "src/turku/api/configuration/environment.py").read_text()
    numbers = {int(number) for number in re.findall(r"error\(\s*(\d+),", source)}
    shown = {
        int(number)
        for path in (EXAMPLES / "invalid" / "api").iterdir()
        for number in re.findall(r"turku\.E(\d+)", path.read_text())
    }
    assert numbers
    assert shown == numbers
