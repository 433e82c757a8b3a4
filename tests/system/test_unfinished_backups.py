"""A source of which no backup was finished has nothing to restore, unless somebody asks for what there is of it."""

import json
import os
from pathlib import Path

import pytest
from tests.support.fleet import Fleet

from turku.core.command import CompletedProgram
from turku.demo import programs
from turku.demo.private_machine import PrivateMachine

EVERYTHING = range(256)
NOT_IN_HISTORY = 66
FAILING = """#!/bin/sh
case "$*" in
*--version*|*turku-restore*) exec rsync "$@" ;;
esac
[ -e "$0.fails" ] || exec rsync "$@"
rsync --exclude=/late "$@"
exit 12
"""


def agent(machine: PrivateMachine, *words: str | Path) -> CompletedProgram:
    subcommand, *rest = words
    arguments = ("--config-dir", machine.config_dir, *rest)
    return programs.run("turku-agent", subcommand, *arguments, expected_codes=EVERYTHING)


def output(completed: CompletedProgram) -> str:
    return "\n".join((completed.stdout.decode(), *completed.last_lines))


@pytest.mark.parametrize("mode", ["none", "link-dest"])
def test_files_that_no_run_finished_are_restored_only_where_that_is_asked_for(tmp_path: Path, mode: str) -> None:
    source = tmp_path / "home"
    source.mkdir()
    (source / "early").write_text("early")
    (source / "late").write_text("late")
    program = tmp_path / "failing-rsync"
    program.write_text(FAILING)
    program.chmod(0o755)
    fails = tmp_path / "failing-rsync.fails"
    fails.touch()
    with Fleet(tmp_path / "fleet") as fleet:
        fleet.storage("primary", rsync_command=[str(program)], sandbox="off", allow_old_rsync=True)
        machine = fleet.machine("web-0", {"home": {"path": str(source), "snapshot_mode": mode}})
        for _night in range(2):
            fleet.make_due(machine)
            programs.run("turku-agent-ping", "--config-dir", machine.config_dir, expected_codes=EVERYTHING)

        for words in (("restore", "home", "--to", tmp_path / "no"), ("ls", "home")):
            refused = agent(machine, *words)
            assert refused.exit_code == NOT_IN_HISTORY, output(refused)
            assert "has no snapshot yet" in output(refused)
            assert "--unfinished" in output(refused)
        dry = agent(machine, "restore", "home", "--to", tmp_path / "no", "--dry-run")
        assert dry.exit_code == NOT_IN_HISTORY
        assert not (tmp_path / "no").exists()

        result = agent(machine, "restore", "home", "--to", tmp_path / "part", "--unfinished")
        assert result.exit_code == 0, output(result)
        assert "NO backup was finished" in output(result)
        assert [path.name for path in (tmp_path / "part").iterdir()] == ["early"]
        listed = agent(machine, "ls", "home", "--unfinished", "--json")
        assert [row["path"] for row in json.loads(listed.stdout)] == ["early"]

        fails.unlink()
        fleet.make_due(machine)
        machine.ping()
        restored = agent(machine, "restore", "home", "--to", tmp_path / "all")
        assert restored.exit_code == 0, output(restored)
        assert sorted(os.listdir(tmp_path / "all")) == ["early", "late"]
        listed = agent(machine, "ls", "home", "--json")
        assert [row["path"] for row in json.loads(listed.stdout)] == ["early", "late"]
        refused = agent(machine, "restore", "home", "--to", tmp_path / "again", "--unfinished")
        assert refused.exit_code == NOT_IN_HISTORY
        assert "has finished backups" in output(refused)

        # A night that fails after one that did not takes nothing away.
        fails.touch()
        (source / "early").write_text("early, changed")
        fleet.make_due(machine)
        programs.run("turku-agent-ping", "--config-dir", machine.config_dir, expected_codes=EVERYTHING)
        restored = agent(machine, "restore", "home", "--to", tmp_path / "later")
        assert restored.exit_code == 0, output(restored)
        # Without history there is the one tree, as far as the last run came.
        assert (tmp_path / "later" / "early").read_text() == ("early" if mode == "link-dest" else "early, changed")
