"""Restores asked for at the coordinator, from the operator's command to the files, with all programs as processes."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support import rsync_programs
from tests.support.fleet import Fleet

from turku.core import lock
from turku.demo import programs
from turku.demo.private_machine import PrivateMachine
from turku.demo.private_storage import PrivateStorage
from turku.errors import LockHeld

SLOWLY = ["rsync", "--bwlimit=300"]
"""A storage's rsync_command with which a megabyte takes some seconds."""


@pytest.fixture(scope="module")
def elsewhere(fleet: Fleet) -> PrivateStorage:
    """A second storage."""
    return fleet.storages.get("elsewhere") or fleet.storage("elsewhere")


@pytest.fixture
def slow(storage: PrivateStorage) -> Iterator[Path]:
    """The storage's file of settings that makes it slow, once a test writes it."""
    path = storage.config_dir / "config.d" / "zz-slow.json"
    yield path
    path.unlink(missing_ok=True)


def tree(directory: Path) -> Path:
    """Some files, one of them with a name that is not UTF-8."""
    (directory / "ssh").mkdir(parents=True)
    (directory / "ssh/sshd_config").write_text("Port 22\n")
    (directory / "hosts").write_text("127.0.0.1 localhost\n")
    (directory / "caf\udce9").write_text("latin\n")
    return directory


def content(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def request(fleet: Fleet, machine: PrivateMachine, *arguments: str, directory: Path) -> str:
    """The id of an approved request."""
    made = fleet.coordinator.manage(
        *("restore", "request", machine.unit_name, "etc", "--directory", str(directory), "--reason", "lost", "--raw"),
        *arguments,
    ).strip()
    assert "waits for the machine" in fleet.coordinator.manage("restore", "approve", made[:8])
    return made


def row(fleet: Fleet, request: str) -> dict[str, Any]:
    """The request as the coordinator lists it."""
    rows = json.loads(fleet.coordinator.manage("restore", "list", "--all", "--json"))
    [found] = [row for row in rows if row["id"] == request]
    return dict(found)


def offer_now(fleet: Fleet, request: str) -> None:
    """Let the time of a pause, or of a lease, be over."""
    fleet.execute(
        "UPDATE restores_restorerequest SET date_offered = '2020-01-01 00:00:00' WHERE id = ?",
        fleet.coordinator.key(request),
    )


def state(fleet: Fleet, request: str) -> str:
    statement = "SELECT state FROM restores_restorerequest WHERE id = ?"
    [(found,)] = fleet.query(statement, fleet.coordinator.key(request))
    return str(found)


def wait_for(condition: Callable[[], bool], *, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def start_ping(machine: PrivateMachine) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [programs.DIRECTORY / "turku-agent-ping", "--config-dir", machine.config_dir], start_new_session=True
    )


def test_a_machine_picks_up_restores_and_reports_them(fleet: Fleet, tmp_path: Path) -> None:
    restored = tmp_path / "restored"
    etc = tree(tmp_path / "etc")
    machine = fleet.machine("asked-0", {"etc": {"path": str(etc)}}, remote_restore=[str(tmp_path)])
    machine.ping()
    whole = request(fleet, machine, directory=restored / "all")
    part = request(fleet, machine, "--path", "ssh", "--path", "caf\udce9", directory=restored / "part")
    machine.ping()
    assert content(restored / "all") == content(etc)
    assert set(content(restored / "part")) == {"ssh/sshd_config", "caf\udce9"}
    for made, files in ((whole, 3), (part, 2)):
        found = row(fleet, made)
        assert (found["state"], found["files"], found["approved_by"]) == ("done", files, ["turku-api"]), found
        assert found["restored_snapshot"] == fleet.snapshots(machine, "etc")[-1].name
        assert "verified" in found["message"]
    permitted = fleet.query("SELECT actor FROM audit_auditentry WHERE action = 'restore.granted'")
    assert permitted.count((machine.uuid,)) == 2
    assert machine.ping().exit_code == 0, "and there is nothing more to be done"


def test_a_machine_without_the_setting_refuses(fleet: Fleet, tmp_path: Path) -> None:
    machine = fleet.machine("asked-1", {"etc": {"path": str(tree(tmp_path / "etc"))}})
    machine.ping()
    made = request(fleet, machine, directory=tmp_path / "restored")
    machine.ping()
    found = row(fleet, made)
    assert found["state"] == "refused"
    assert "remote_restore is not set on this machine" in found["message"]
    assert not (tmp_path / "restored").exists()


def test_a_dead_machine_s_replacement_gets_its_files(fleet: Fleet, elsewhere: PrivateStorage, tmp_path: Path) -> None:
    etc = tree(tmp_path / "etc")
    dead = fleet.machine("asked-2", {"etc": {"path": str(etc)}}, storage=fleet.storages["primary"])
    dead.ping()
    replacement = fleet.machine("asked-3", {}, storage=elsewhere, remote_restore=[str(tmp_path / "new")])
    (replacement.var_dir / "known_storages.json").write_text("{}")
    made = request(fleet, dead, "--onto", "asked-3", directory=tmp_path / "new/etc")
    replacement.ping()
    found = row(fleet, made)
    assert found["state"] == "waiting", "the machine does not know that storage yet (threats C1)"
    assert "turku-agent accept-storage" in found["why_waiting"]
    programs.run("turku-agent", "accept-storage", "primary", "--config-dir", replacement.config_dir)
    offer_now(fleet, made)
    replacement.ping()
    found = row(fleet, made)
    assert found["state"] == "waiting", "the storage does not know that machine yet"
    assert "does not admit this machine" in found["why_waiting"]
    fleet.storages["primary"].update_config()
    offer_now(fleet, made)
    replacement.ping()
    assert row(fleet, made)["state"] == "done"
    assert content(tmp_path / "new/etc") == content(etc)
    # And no longer: the next restore of the same is nobody's.
    fleet.storages["primary"].update_config()
    keys = (fleet.storages["primary"].directory / "authorized_keys").read_text()
    assert dead.uuid in keys
    assert replacement.uuid not in keys


def test_a_restore_that_was_killed_is_picked_up_again_and_completed(
    fleet: Fleet, storage: PrivateStorage, slow: Path, tmp_path: Path
) -> None:
    etc = tree(tmp_path / "etc")
    (etc / "large").write_bytes(os.urandom(3_000_000))
    machine = fleet.machine("asked-4", {"etc": {"path": str(etc)}}, storage=storage, remote_restore=[str(tmp_path)])
    machine.ping()
    slow.write_text(json.dumps({"rsync_command": rsync_programs.words(SLOWLY)}))
    target = tmp_path / "restored"
    made = request(fleet, machine, directory=target)
    ping = start_ping(machine)
    wait_for(lambda: any(target.rglob("*large*")))
    os.killpg(ping.pid, signal.SIGKILL)
    ping.wait()
    assert state(fleet, made) in ("picked_up", "running")
    assert not (target / "large").exists(), "nothing is half written under its final name"
    machine.ping()
    assert state(fleet, made) in ("picked_up", "running"), "its lease is not over"
    slow.unlink()
    offer_now(fleet, made)
    machine.ping()
    assert row(fleet, made)["state"] == "done"
    assert content(target) == content(etc)
    events = fleet.query("SELECT action FROM audit_auditentry WHERE subject_key = ? ORDER BY id", made)
    assert [action for (action,) in events].count("restore.picked_up") == 2


def test_a_restore_that_is_cancelled_while_it_runs_ends(
    fleet: Fleet, storage: PrivateStorage, slow: Path, tmp_path: Path
) -> None:
    etc = tree(tmp_path / "etc")
    (etc / "large").write_bytes(os.urandom(20_000_000))
    machine = fleet.machine("asked-5", {"etc": {"path": str(etc)}}, storage=storage, remote_restore=[str(tmp_path)])
    machine.ping()
    slow.write_text(json.dumps({"rsync_command": rsync_programs.words(SLOWLY)}))
    made = request(fleet, machine, directory=tmp_path / "restored")
    ping = start_ping(machine)
    wait_for(lambda: state(fleet, made) == "running" and any((tmp_path / "restored").rglob("*large*")))
    fleet.coordinator.manage("restore", "cancel", made)
    assert ping.wait(timeout=45) == 0
    found = row(fleet, made)
    assert (found["state"], found["ended_by"]) == ("cancelled", "turku-api")
    assert not (tmp_path / "restored/large").exists()


def test_a_restore_does_not_wait_for_the_end_of_a_backup(fleet: Fleet, tmp_path: Path) -> None:
    etc = tree(tmp_path / "etc")
    machine = fleet.machine("asked-6", {"etc": {"path": str(etc)}}, remote_restore=[str(tmp_path)])
    machine.ping()
    made = request(fleet, machine, directory=tmp_path / "restored")
    # As a ping does that backs up for a day.
    with lock.exclusive(machine.directory / "lock", "turku-agent-ping"):
        assert machine.ping(check=False).exit_code == LockHeld.exit_code
    assert state(fleet, made) == "done"
    assert content(tmp_path / "restored") == content(etc)
