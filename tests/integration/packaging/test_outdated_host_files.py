"""The checks of all programs name installed units and other files that are not those of their version."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.backed_up_machine import backed_up_machine

from turku.agent import cli
from turku.api.project.checks import host_files_check
from turku.core.setup import host_files
from turku.storage.commands import check


@pytest.fixture
def units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of installed units, instead of this host's."""
    directory = tmp_path / "units"
    directory.mkdir()
    for kind in host_files.PLACES:
        monkeypatch.setitem(host_files.PLACES, kind, str(tmp_path / "none"))
    monkeypatch.setattr(host_files, "PACKAGE_PLACES", {"systemd": (str(directory),)})
    return directory


def install(units: Path, package: str, name: str, ending: bytes = b"") -> None:
    content = host_files.HostFile(package, "systemd", name).content(Path("/usr/bin"))
    (units / name).write_bytes(content + ending)


def agents(directory: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    (directory / "config.d").mkdir(parents=True)
    (directory / "sources.d").mkdir()
    (directory / "config.d" / "config.json").write_text('{"api_url": "https://turku.example.com/v1"}')
    cli.main(["check", "--offline", "--config-dir", str(directory)])
    return capsys.readouterr().out.splitlines()


def test_the_agents_check_names_a_unit_of_another_version(
    units: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install(units, "turku.agent", "turku-agent-ping.service", b"# older\n")
    install(units, "turku.agent", "turku-agent-ping.timer")
    [line] = (line for line in agents(tmp_path / "agent", capsys) if str(units) in line)
    assert line.startswith(f"note: {units}/turku-agent-ping.service differs from the one of this version")


@pytest.fixture
def storage_lines(tmp_path: Path, units: Path) -> Iterator[list[str]]:
    install(units, "turku.storage", "turku-storage-gc.timer", b"# older\n")
    install(units, "turku.storage", "turku-storage-gc.service")
    with backed_up_machine(tmp_path, volume=tmp_path / "storage" / "volume", sandbox="off") as machine:
        lines: list[str] = []
        check.report(machine.storage, lines.append)
        yield lines


def test_the_storages_check_names_a_unit_of_another_version(storage_lines: list[str], units: Path) -> None:
    [line] = (line for line in storage_lines if str(units) in line)
    assert line.startswith(f"note: {units}/turku-storage-gc.timer differs from the one of this version")


def test_the_coordinators_check_warns_of_a_unit_of_another_version(units: Path) -> None:
    install(units, "turku.api", "turku-api.service")
    assert host_files_check() == []
    install(units, "turku.api", "turku-api.service", b"# older\n")
    [warning] = host_files_check()
    assert warning.id == "turku.W002"
    assert not warning.is_serious()
    assert str(units / "turku-api.service") in warning.msg
