"""``turku-storage status``: one screen of 80 columns, and the same facts as JSON."""

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.backed_up_machine import BackedUpMachine, backed_up_machine

from turku.core import lock
from turku.core.cli import systemd_timers
from turku.core.cli.systemd_timers import Timer
from turku.core.clock import SYSTEM_CLOCK
from turku.protocol.client import ApiClient
from turku.storage.commands import status
from turku.storage.disk import volume_marks
from turku.storage.registration import faults, update_config

Show = Callable[..., tuple[int, str]]


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[BackedUpMachine]:
    with backed_up_machine(tmp_path, volume=tmp_path / "storage" / "volume") as made:
        made.storage.state.var_dir.mkdir(exist_ok=True)
        (made.source_dir / "file").write_text("content")
        volume_marks.require(made.storage, made.storage.disk.volumes[0])
        assert made.back_up().success
        yield made


@pytest.fixture
def show(machine: BackedUpMachine) -> Show:
    def run(*, as_json: bool = False) -> tuple[int, str]:
        said: list[str] = []
        code = status.run(argparse.Namespace(json=as_json), machine.storage, SYSTEM_CLOCK, said.append)
        return code, "\n".join(said)

    return run


@pytest.fixture
def reachable(machine: BackedUpMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ApiClient, "call", lambda *_arguments: None)
    with update_config._recorded(machine.storage, SYSTEM_CLOCK):
        pass


@pytest.mark.usefixtures("reachable")
def test_a_storage_that_is_well_says_so_in_80_columns(show: Show, machine: BackedUpMachine) -> None:
    code, text = show()
    assert (code, text.splitlines()[-1]) == (0, "No problem found."), text
    # A path is not broken, so that it can be copied.
    assert max(len(line) for line in text.splitlines() if str(machine.storage.disk.volumes[0].path) not in line) <= 80
    assert "storage primary" in text.splitlines()[0]
    for said in ("reachable, last report a moment ago", "% used", "none at this moment", f" {machine.place.source}, "):
        assert said in " ".join(text.split())
    assert "verify       never; 1 source never" in text


@pytest.mark.usefixtures("reachable")
def test_sessions_are_known_by_their_locks_which_are_not_touched(show: Show, machine: BackedUpMachine) -> None:
    uuid = machine.place.machine_dir.name
    locks = machine.storage.state.lock_dir
    with lock.exclusive(locks, f"machine-{uuid}"), lock.exclusive(locks, f"session-{uuid}-restore-0"):
        found = json.loads(show(as_json=True)[1])
        assert sorted(each["kind"] for each in found["sessions"]) == ["backup", "restore"]
        assert {each["uuid"] for each in found["sessions"]} == {uuid}
    assert json.loads(show(as_json=True)[1])["sessions"] == []


def test_what_is_wrong_is_told_with_exit_code_1(
    show: Show, machine: BackedUpMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults.note_containment(machine.storage.state, "rsync runs without a sandbox")
    failed = Timer("turku-storage-gc", is_installed=True, is_active=True, has_service_failed=True)
    monkeypatch.setattr(systemd_timers, "read", lambda _names: (failed,))
    volume = machine.storage.disk.volumes[0].path
    (volume / ".turku-volume").rename(volume / "away")
    code, text = show(as_json=True)
    found: dict[str, Any] = json.loads(text)
    assert code == 1
    [data] = found["volumes"]
    assert "lacks the mark" in data["fault"]
    problems = "\n".join(found["problems"])
    for said in ("cannot be reached", "never accepted", "lacks the mark", "without a sandbox", "gc.service failed"):
        assert said in problems
    code, text = show()
    assert code == 1
    assert "NOT reachable, no report so far" in text
    assert "NOT there" in text
    assert max(len(line) for line in text.splitlines() if "/" not in line) <= 80


@pytest.mark.usefixtures("reachable")
def test_json_names_the_newest_backup(show: Show, machine: BackedUpMachine) -> None:
    (machine.source_dir / "more").write_text("content")
    assert machine.back_up().success
    [run] = json.loads(show(as_json=True)[1])["last_backups"]
    assert run["snapshot"] == machine.snapshots()[-1]
    assert run["seconds"] >= 0


def test_a_report_that_failed_is_no_answer(machine: BackedUpMachine) -> None:
    with pytest.raises(OSError, match="no network"), update_config._recorded(machine.storage, SYSTEM_CLOCK):
        raise OSError("no network")
    assert update_config.last_answer(machine.storage.state) is None
