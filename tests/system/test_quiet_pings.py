"""Pings for which there is nothing to do, or that must not do anything."""

import json
from pathlib import Path

from tests.support.fleet import Fleet
from tests.support.recorder import Recorder
from tests.support.sshd import free_port
from tests.system.conftest import MakeMachine

from turku.core import command


def test_a_ping_with_nothing_due_starts_neither_rsync_nor_ssh(
    fleet: Fleet, make_machine: MakeMachine, files: Path, tmp_path: Path
) -> None:
    recorder = Recorder(tmp_path / "notes")
    machine = make_machine(
        {"files": {"path": str(files)}}, ssh_command=recorder.ssh_command, rsyncd_command=recorder.rsyncd_command
    )
    machine.ping()
    recorder.forget()
    machine.ping()
    assert recorder.calls("ssh") == []
    assert recorder.calls("rsyncd") == []
    assert len(fleet.snapshots(machine, "files")) == 1


def test_a_session_without_due_sources_ends_by_itself_and_transfers_nothing(
    fleet: Fleet, make_machine: MakeMachine, files: Path
) -> None:
    machine = make_machine({"files": {"path": str(files)}})
    machine.ping()
    sshd = fleet.sshds["primary"]
    port = free_port()
    request = {"verbose": True, "action": "checkin", "port": port, "sources": {}}
    tunnel = ("-T", "-R", f"{port}:127.0.0.2:{port}")
    argv = sshd.client(machine.var_dir / "ssh_key", *tunnel, command=("turku-ping-remote",))

    # stdin stays open, as the contract has it: the storage is the one that ends the session.
    with command.start(argv, stdin=True) as session:
        session.stdin.write(json.dumps(request).encode() + b"\n.\n")
        session.stdin.flush()
        assert session.wait(20) == 0

    assert len(fleet.runs(machine, "files")) == 1


def test_the_go_no_go_program_decides(fleet: Fleet, make_machine: MakeMachine, files: Path, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    machine = make_machine({"files": {"path": str(files)}}, gonogo_program=["test", "-e", str(gate)])
    machine.ping(check=False)
    assert fleet.snapshots(machine, "files") == []
    gate.touch()
    machine.ping()
    assert len(fleet.snapshots(machine, "files")) == 1


def test_a_source_that_is_named_no_more_is_unpublished_and_its_history_stays(
    fleet: Fleet, make_machine: MakeMachine, files: Path
) -> None:
    machine = make_machine({"old": {"path": str(files)}, "other": {"path": str(files)}})
    machine.ping()
    machine.declare({"other": {"path": str(files)}})
    machine.update_config()
    fleet.make_due(machine)
    machine.ping()
    assert not fleet.source_state(machine, "old")["published"]
    assert len(fleet.snapshots(machine, "old")) == 1
    assert len(fleet.snapshots(machine, "other")) == 2
