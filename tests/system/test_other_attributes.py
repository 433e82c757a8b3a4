"""Attributes that a storage has lost or changed are noticed by the agent that gets the files back."""

import os
from pathlib import Path

import pytest
from tests.support.fleet import Fleet
from tests.system.conftest import MakeMachine
from tests.system.test_agent_restore import EVERYTHING, agent, output

SAID = "has other extended attributes or ACLs than what was backed up"


@pytest.mark.skipif(os.geteuid() != 0, reason="without root not all attributes can be set, which is counted")
def test_restored_files_with_other_attributes_are_named(
    fleet: Fleet, make_machine: MakeMachine, files: Path, tmp_path: Path
) -> None:
    os.setxattr(files / "a.txt", "user.comment", b"a note")
    os.setxattr(files / "b.txt", "trusted.overlay", b"y")
    machine = make_machine({"files": {"path": str(files)}})
    machine.ping()
    whole = agent(machine, "restore", "files", "--to", tmp_path / "whole")
    assert SAID not in output(whole)
    assert os.getxattr(tmp_path / "whole" / "a.txt", "user.comment") == b"a note"

    [snapshot] = fleet.snapshots(machine, "files")
    os.setxattr(snapshot / "a.txt", "user.comment", b"another note")
    os.removexattr(snapshot / "b.txt", "trusted.overlay")
    completed = agent(machine, "restore", "files", "--to", tmp_path / "other", codes=EVERYTHING)
    assert completed.exit_code == 3
    for name in ("a.txt", "b.txt"):
        assert f"{name} {SAID}" in output(completed)
