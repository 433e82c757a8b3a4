"""``turku-agent check``, ``status``, and ``turku-agent-ping`` in a terminal: what the machine's operator is told."""

import json
import os
import pty
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.fleet import Fleet

from turku.demo import programs
from turku.demo.private_machine import PrivateMachine


@pytest.fixture(scope="module")
def own_fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(tmp_path_factory.mktemp("status-fleet")) as fleet:
        fleet.storage("primary")
        yield fleet


@pytest.fixture
def machine(own_fleet: Fleet, files: Path, request: pytest.FixtureRequest) -> PrivateMachine:
    return own_fleet.machine(request.node.name.replace("_", "-")[:60], {"files": {"path": str(files)}})


def agent(machine: PrivateMachine, *arguments: str, code: int = 0) -> str:
    completed = programs.run(
        *("turku-agent", *arguments, "--config-dir", str(machine.config_dir)), expected_codes=(code,)
    )
    return completed.stdout.decode()


def status(machine: PrivateMachine, code: int = 0) -> str:
    """The screen with one blank between words, wherever its lines are broken."""
    return " ".join(agent(machine, "status", code=code).split())


def facts(machine: PrivateMachine, code: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(agent(machine, "status", "--json", code=code))
    return found


def in_terminal(machine: PrivateMachine) -> str:
    """Return the words of a ping in a terminal."""
    primary, secondary = pty.openpty()
    argv = [str(programs.DIRECTORY / "turku-agent-ping"), "--config-dir", str(machine.config_dir)]
    with subprocess.Popen(argv, stdout=secondary, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL) as process:
        os.close(secondary)
        said = b""
        try:
            while chunk := os.read(primary, 4096):
                said += chunk
        except OSError:
            # The terminal ends with the process.
            pass
        assert process.wait(60) == 0
    os.close(primary)
    return said.decode().strip()


def set_authorized(fleet: Fleet, content: str) -> str:
    keys = fleet.sshds["primary"].authorized_keys
    before = keys.read_text()
    keys.write_text(content)
    return before


def test_check_asks_the_coordinator_and_logs_in_at_the_storage(own_fleet: Fleet, machine: PrivateMachine) -> None:
    said = agent(machine, "check")
    assert "The coordinator knows this machine, with 1 source in force." in said
    assert "Storage primary is reachable and lets this machine in." in said
    assert "PROBLEM" not in said
    # It starts nothing, and no trust is recorded.
    assert own_fleet.runs(machine, "files") == []
    assert not (machine.var_dir / "known_storages.json").exists()
    assert list((machine.var_dir / "run").iterdir()) == []


def test_check_finds_a_storage_that_does_not_let_the_machine_in(own_fleet: Fleet, machine: PrivateMachine) -> None:
    before = set_authorized(own_fleet, "")
    try:
        said = agent(machine, "check", code=1)
        assert "PROBLEM: storage primary: storage primary (127.0.0.1 port" in said
        assert "does not admit this machine" in said
        assert "PROBLEM" not in agent(machine, "check", "--offline")
    finally:
        set_authorized(own_fleet, before)


def test_check_finds_a_machine_that_the_coordinator_does_not_know(own_fleet: Fleet, machine: PrivateMachine) -> None:
    own_fleet.execute(
        "UPDATE fleet_machine SET active = ? WHERE uuid = ?", False, own_fleet.coordinator.key(machine.uuid)
    )
    assert "PROBLEM: the coordinator: " in agent(machine, "check", code=1)
    assert "the coordinator: " in status(machine, code=1)


def test_check_finds_sources_that_are_refused_or_not_declared_yet(machine: PrivateMachine, files: Path) -> None:
    machine.declare({"files": {"path": str(files)}, "bad": {"path": str(files), "filter": ["merge nowhere"]}})
    programs.run("turku-update-config", "--config-dir", machine.config_dir, expected_codes=(65,))
    said = agent(machine, "check", code=1)
    assert "PROBLEM: source bad is not in force as it is declared: filter: " in said
    assert "sources.json, line " in said
    machine.declare({"files": {"path": str(files)}, "new": {"path": str(files)}})
    machine.update_config()
    machine.declare({"files": {"path": str(files)}, "new": {"path": str(files)}, "newer": {"path": str(files)}})
    assert "PROBLEM: the coordinator does not know source newer yet" in agent(machine, "check", code=1)


def test_status_is_one_screen_of_what_is_and_what_is_wrong(own_fleet: Fleet, machine: PrivateMachine) -> None:
    machine.ping()
    said = status(machine)
    assert machine.uuid in said
    assert "Storage primary" in said
    assert re.search(r"files backed up a moment ago \(..:..\)", said)
    assert re.search(r"Next files in ", said)
    assert said.endswith("No problem found.")
    assert len(agent(machine, "status").splitlines()) <= 24
    assert facts(machine)["sources"]["files"]["succeeded"]


def test_status_knows_what_the_machine_knows_while_the_coordinator_is_away(
    own_fleet: Fleet, machine: PrivateMachine
) -> None:
    machine.ping()
    own_fleet.coordinator.stop()
    try:
        said = status(machine, code=1)
        assert re.search(r"session, primary a moment ago", said)
        assert "Storage not known while the coordinator is away" in said
        assert facts(machine, code=1)["coordinator_problem"]
    finally:
        own_fleet.coordinator.start()


def test_status_names_a_failed_session_and_a_failed_source(own_fleet: Fleet, machine: PrivateMachine) -> None:
    own_fleet.sshds["primary"].stop()
    try:
        machine.ping(check=False)
        assert "- storage primary: no SSH session with " in status(machine, code=1)
    finally:
        own_fleet.sshds["primary"].start()
    machine.declare({"files": {"path": "/no/such/directory"}})
    machine.update_config()
    machine.ping(check=False)
    assert "- source files failed: " in status(machine, code=1)
    assert "no SSH session" not in status(machine, code=1)


def test_a_ping_in_a_terminal_says_what_failed_and_what_is_next(own_fleet: Fleet, machine: PrivateMachine) -> None:
    machine.ping()
    assert re.fullmatch(r"nothing due; next is files (at|on) .*", in_terminal(machine))
    machine.declare({"files": {"path": "/no/such/directory"}})
    machine.update_config()
    own_fleet.make_due(machine)
    machine.ping(check=False)
    assert re.fullmatch(r"nothing due; files failed a moment ago, again (on ... )?at ..:..", in_terminal(machine))
    assert machine.ping().stdout == b""


def test_a_ping_in_a_terminal_says_that_no_storage_is_assigned(own_fleet: Fleet, machine: PrivateMachine) -> None:
    own_fleet.execute(
        "UPDATE fleet_machine SET storage_id = NULL WHERE uuid = ?", own_fleet.coordinator.key(machine.uuid)
    )
    assert in_terminal(machine) == "nothing due: the coordinator has assigned no storage to this machine yet"
    assert "assigned no storage to this machine yet" in agent(machine, "check")
