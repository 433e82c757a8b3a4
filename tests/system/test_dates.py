"""A file with a date before 1970 or after 2262 goes to a storage and comes back with its very date."""

import json
import os
from pathlib import Path

import pytest
from tests.support.fleet import Fleet
from tests.support.trees import differences
from tests.system.conftest import MakeMachine
from tests.system.test_agent_restore import agent, copied, output

SECONDS = (-2_140_000_000, -1, 4_294_967_296, 9_300_000_000, 15_032_385_000)


def test_files_of_any_date_come_back_as_they_were(
    fleet: Fleet, make_machine: MakeMachine, files: Path, tmp_path: Path
) -> None:
    for second in SECONDS:
        directory = files / str(second)
        directory.mkdir()
        (directory / "file").write_text(str(second))
        (directory / "link").symlink_to("file")
        for path in (directory / "file", directory / "link", directory):
            os.utime(path, ns=(0, second * 10**9 + 123_456_789), follow_symlinks=False)
    if (files / str(SECONDS[-1])).stat().st_mtime < SECONDS[-1]:
        pytest.skip("this file system does not go to the year 2446")
    machine = make_machine({"files": {"path": str(files)}})
    machine.ping()
    original = copied(files)

    rows = json.loads(agent(machine, "ls", "files", "-r", "--json").stdout)
    assert {row["mtime_ns"] for row in rows} >= {second * 10**9 + 123_456_789 for second in SECONDS}
    assert "2446-05-10" in agent(machine, "ls", "files").stdout.decode()

    # A part of it, so that the agent makes the directory above.
    part = f"{SECONDS[-1]}/file"
    agent(machine, "restore", "files", part, "--to", tmp_path / "part")
    for each in (part, str(SECONDS[-1])):
        assert (tmp_path / "part" / each).stat().st_mtime_ns == (original / each).stat().st_mtime_ns

    completed = agent(machine, "restore", "files", "--to", tmp_path / "all")
    assert differences(original, tmp_path / "all", "--modify-window=-1") == []
    assert "NOT" not in output(completed)

    assert "replace" not in output(agent(machine, "restore", "files", "--in-place", "--dry-run"))
    for second in SECONDS:
        os.utime(files / str(second) / "file", ns=(0, 0))
    completed = agent(machine, "restore", "files", "--in-place", "--yes")
    assert differences(original, files, "--modify-window=-1") == []
