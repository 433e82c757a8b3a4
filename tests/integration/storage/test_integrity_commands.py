"""``turku-storage verify`` and ``drill`` as an operator runs them, with the coordinator of an existing system too."""

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.backed_up_machine import BackedUpMachine, backed_up_machine, storage_configuration
from tests.support.v1_server import V1Api

from turku.core import lock
from turku.errors import LockHeld, NotInHistory, UsageError
from turku.storage.cli import main
from turku.storage.integrity import damage


@pytest.fixture
def api() -> Iterator[V1Api]:
    """It has no call beyond the contract."""
    with V1Api() as api:
        yield api


@pytest.fixture
def machine(tmp_path: Path, api: V1Api) -> Iterator[BackedUpMachine]:
    with backed_up_machine(tmp_path, volume=tmp_path / "storage" / "volume", api_url=api.url) as machine:
        for number in range(10):
            (machine.source_dir / f"f{number}").write_bytes(os.urandom(4000))
        machine.days(2)
        yield machine


def run(machine: BackedUpMachine, *arguments: str) -> int:
    return main([*arguments, "--config-dir", str(machine.storage.config_dir)])


def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def spoil(machine: BackedUpMachine, name: str = "f3") -> None:
    path = machine.place.tree(machine.snapshots()[-1]) / name
    status = path.stat()
    path.write_bytes(b"rotten" + path.read_bytes()[6:])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_with_an_existing_coordinator_the_exit_code_and_the_terminal_show_it(
    machine: BackedUpMachine, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(machine, "verify", "--background") == 0
    assert "good: 12 versions in 12 files" in capsys.readouterr().out
    spoil(machine)
    assert run(machine, "verify") == 1
    said = capsys.readouterr().out
    assert "1 DAMAGED" in said
    assert "f3: content, the next backup brings it" in said
    assert all(name in said for name in machine.snapshots())
    assert run(machine, "verify", "--json") == 1
    [found] = printed(capsys)
    assert (found["is_reported"], len(found["damages"])) == (False, 1)
    assert [each.is_reported for each in damage.read(machine.place)] == [False]
    machine.back_up()
    assert run(machine, "verify") == 0
    assert "f3: content, repaired" in capsys.readouterr().out
    assert damage.read(machine.place) == []


def test_a_repair_while_the_coordinator_was_away_is_reported_later(machine: BackedUpMachine, api: V1Api) -> None:
    spoil(machine)
    assert run(machine, "verify") == 1
    machine.back_up()
    api.__exit__()
    assert run(machine, "verify") == 0
    assert [(each.state, each.is_reported) for each in damage.read(machine.place)] == [("repaired", False)]


def test_a_sample_and_a_budget_bound_it(machine: BackedUpMachine, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(machine, "verify", "--sample", "25", "--json") == 0
    assert printed(capsys)[0]["versions"] == 3
    assert run(machine, "verify", "--budget", "0.000001", "--json") == 0
    assert all(not each["is_complete"] for each in printed(capsys))
    assert run(machine, "verify", "--budget", "60", "--rate", "100", "--json") == 0
    [found] = printed(capsys)
    assert found["is_complete"]
    assert found["oldest_check"] is not None
    for wrong in ("0", "101", "half"):
        with pytest.raises(UsageError):
            run(machine, "verify", "--sample", wrong)
    with pytest.raises(UsageError):
        run(machine, "verify", "--sample", "5", "--budget", "5")
    with pytest.raises(NotInHistory, match="no history"):
        run(machine, "verify", "--source", "nothing")


def test_one_verification_at_a_time(machine: BackedUpMachine) -> None:
    with lock.exclusive(machine.storage.state.lock_dir, "verify"), pytest.raises(LockHeld):
        run(machine, "verify")


def test_a_drill_reports_the_restored_files(machine: BackedUpMachine, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(machine, "drill", "--json") == 0
    [found] = printed(capsys)
    assert (found["success"], found["files"], found["problems"]) == (True, 11, [])
    assert run(machine, "drill", "--due") == 0
    assert capsys.readouterr().out == "no drill is due\n"
    spoil(machine, "diary")
    assert run(machine, "drill", "--source", "etc") == 1
    assert "diary: its content is not what was backed up" in capsys.readouterr().out


def test_leftovers_of_a_killed_drill_are_removed(machine: BackedUpMachine) -> None:
    left = machine.storage.integrity.drill_directory / "left"
    left.mkdir(parents=True)
    (left / "file").touch()
    assert run(machine, "drill", "--due") == 0
    assert not left.exists()


def test_a_broken_catalog_is_made_anew_and_what_is_kept_trusted_on_first_sight(
    machine: BackedUpMachine, capsys: pytest.CaptureFixture[str]
) -> None:
    from turku.storage.catalog import database

    database.file_of(machine.place).write_bytes(b"no database" * 1000)
    assert run(machine, "verify", "--json") == 0
    assert printed(capsys)[0]["new_checksums"] == 12


def test_check_writes_nothing_to_a_new_storage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    storage_configuration(tmp_path, sandbox="off")
    path = tmp_path / "config.d" / "config.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in content.items() if key not in ("name", "secret")}))
    (tmp_path / "volume").mkdir()
    before = set(tmp_path.rglob("*"))
    assert main(["check", "--config-dir", str(tmp_path)]) == 1
    assert f"storage {socket.getfqdn()}, coordinator" in capsys.readouterr().out
    assert set(tmp_path.rglob("*")) == before
