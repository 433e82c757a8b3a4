"""Thousands of files that cannot be read take few lines, on the machine and on the storage, and their number is said."""

import os
from pathlib import Path

import pytest
from tests.support.fleet import Fleet

from turku.demo.private_machine import PrivateMachine

FILES = 3000


@pytest.fixture
def machine(fleet: Fleet, tmp_path: Path) -> PrivateMachine:
    if os.geteuid() != 0:
        pytest.skip("only root can have rsync read as another user")
    for directory in (tmp_path, *tmp_path.parents[:2]):
        directory.chmod(0o755)
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(FILES):
        (tree / f"{number}").touch(mode=0o600)
        (tree / f"{number}").write_text("x")
    return fleet.machine("many-messages", {"tree": {"path": str(tree)}}, rsyncd_user="nobody")


def test_they_are_counted_on_both_sides(fleet: Fleet, machine: PrivateMachine) -> None:
    said = "\n".join(machine.ping(check=False).last_lines)
    assert f"rsyncd: {FILES - 20} more messages are not shown: {FILES - 20} x rsync: [sender] send_files failed" in said
    log = fleet.storage_of(machine).log_file.read_text()
    lines = [line for line in log.splitlines() if machine.uuid in line]
    assert len(lines) < 50
    assert any(f"{FILES - 20} x unreadable file (Permission denied)" in line for line in lines)
