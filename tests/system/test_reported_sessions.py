"""Sessions that only the machine knows of: told in its own words, and told to the coordinator at the next checkin."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.fleet import Fleet

from turku.core import command
from turku.core.command import CompletedProgram
from turku.demo.private_machine import PrivateMachine


@pytest.fixture(scope="module")
def own_fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A fleet whose health is that of the test's machine alone."""
    with Fleet(tmp_path_factory.mktemp("reporting-fleet")) as fleet:
        fleet.storage("primary")
        yield fleet


@pytest.fixture
def machine(own_fleet: Fleet, files: Path, request: pytest.FixtureRequest) -> Iterator[PrivateMachine]:
    yield own_fleet.machine(request.node.name.replace("_", "-")[:60], {"files": {"path": str(files)}})
    own_fleet.execute("UPDATE fleet_machine SET active = ?", False)


def health(fleet: Fleet) -> str:
    """The lines of the fleet's health, good or bad."""
    return fleet.coordinator.manage("health", "--verbose", check=False)


def failures(fleet: Fleet, machine: PrivateMachine) -> list[dict[str, Any]]:
    [(content,)] = fleet.query(
        "SELECT session_failures FROM fleet_machine WHERE uuid = ?", fleet.coordinator.key(machine.uuid)
    )
    found: list[dict[str, Any]] = json.loads(content)
    return found


def said(completed: CompletedProgram) -> str:
    return "\n".join(completed.last_lines)


def test_an_unreachable_storage_is_in_the_health_after_the_next_checkin_until_a_session_works(
    own_fleet: Fleet, machine: PrivateMachine
) -> None:
    sshd = own_fleet.sshds["primary"]
    sshd.stop()
    try:
        assert machine.ping(check=False).exit_code == 2
        assert "session failed" not in health(own_fleet)
        machine.ping(check=False)
        [failure] = failures(own_fleet, machine)
        assert (failure["kind"], failure["sources"]) == ("storage-unreachable", ["files"])
        assert "session failed: storage primary: no SSH session with " in health(own_fleet)
        assert "(for files), since 20" in health(own_fleet)
    finally:
        sshd.start()
    machine.ping()
    # The session has worked, and the checkin after it tells.
    machine.ping()
    assert failures(own_fleet, machine) == []
    assert "session failed" not in health(own_fleet)


def test_a_changed_host_key_is_told_in_the_agents_own_words(own_fleet: Fleet, machine: PrivateMachine) -> None:
    sshd = own_fleet.sshds["primary"]
    machine.ping()
    trusted = sshd.host_key.read_text()
    kept = {path: path.read_bytes() for path in (sshd.directory / "host_key", sshd.host_key)}
    sshd.stop()
    for path in kept:
        path.unlink()
    # It makes another key.
    sshd.start()
    try:
        own_fleet.make_due(machine)
        ping = machine.ping(check=False)
        assert ping.exit_code == 2
        shown = command.run(["ssh-keygen", "-lf", sshd.host_key], timeout_seconds=30).stdout.decode().split()[1]
        assert f"shows the host key {shown}, which this machine does not trust; it gets nothing" in said(ping)
        assert "turku-agent accept-storage 'primary'" in said(ping)
        for raw in ("@@@", "REMOTE HOST IDENTIFICATION", "NASTY", "ssh-keygen -f", "Host key verification failed"):
            assert raw not in said(ping)
        machine.ping(check=False)
        [failure] = failures(own_fleet, machine)
        assert failure["kind"] == "host-key-refused"
    finally:
        sshd.stop()
        for path, content in kept.items():
            path.write_bytes(content)
        sshd.start()
    assert sshd.host_key.read_text() == trusted
    own_fleet.make_due(machine)
    machine.ping()
    machine.ping()
    assert failures(own_fleet, machine) == []


def test_a_machine_that_is_not_admitted_sees_no_denied_permission(own_fleet: Fleet, machine: PrivateMachine) -> None:
    keys = own_fleet.sshds["primary"].authorized_keys
    content = keys.read_text()
    keys.write_text("")
    try:
        ping = machine.ping(check=False)
        assert ping.exit_code == 2
        assert "does not admit this machine" in said(ping)
        assert "Permission denied" not in said(ping)
        # The storage of a new machine has some minutes.
        machine.ping(check=False)
        assert failures(own_fleet, machine) == []
        keys.write_text(content)
        machine.ping()
        # This machine was admitted before.
        keys.write_text("")
        own_fleet.make_due(machine)
        machine.ping(check=False)
        machine.ping(check=False)
        [failure] = failures(own_fleet, machine)
        assert failure["kind"] == "not-admitted"
    finally:
        keys.write_text(content)


def test_a_storage_that_is_not_trusted_and_a_missing_ssh_are_told(own_fleet: Fleet, machine: PrivateMachine) -> None:
    path = machine.config_dir / "config.d" / "broken.json"
    path.write_text(json.dumps({"ssh_command": ["no-such-ssh"]}))
    machine.ping(check=False)
    machine.ping(check=False)
    [failure] = failures(own_fleet, machine)
    assert failure["reason"] == "cannot start no-such-ssh: No such file or directory"
    path.write_text(json.dumps({"trust_new_storages": "never"}))
    (machine.var_dir / "known_storages.json").write_text("{}")
    machine.ping(check=False)
    machine.ping(check=False)
    [failure] = failures(own_fleet, machine)
    assert failure["kind"] == "storage-not-trusted"
