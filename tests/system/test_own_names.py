"""A source may hold every name that Turku's programs give to what is temporary: it is backed up and comes back whole."""

import json
import os
from pathlib import Path

import pytest
from tests.support.fleet import Fleet
from tests.support.trees import differences
from tests.system.conftest import MakeMachine

from turku.agent import checkin
from turku.agent.config import loading as configuration
from turku.agent.restore import run as restore_run
from turku.agent.restore.job import RestoreJob
from turku.demo import programs

NAMES = (
    *(".turku-restore", ".turku-restore-partial", ".turku-nothing", ".turku-deep-1", ".turku-deep-2"),
    *(f".turku-restore-{'0' * 32}", f".turku-restore-{'0' * 32}-partial"),
    *(
        ".turku-link-0123456789abcdef",
        ".turku-link-0123456789ab",
        ".turku-own-0123456789ab",
        ".turku-unnamed-1-0123456789ab",
    ),
    *(
        ".x.turku-tmp-0123456789ab",
        ".~tmp~",
        ".rsync-partial",
        "tree",
        "scratch",
        ".damaged-1",
        ".deleting-home",
        ".staging",
    ),
    *(".assembling", ".former", ".fetch-list", ".repair", "latest", "home.snapshots", ".file.AbCdEf"),
)


@pytest.mark.parametrize("mode", ["link-dest", "none"])
def test_names_of_ours_are_names_like_others(
    fleet: Fleet, make_machine: MakeMachine, tmp_path: Path, mode: str
) -> None:
    source = tmp_path / "home"
    machine = make_machine({"home": {"path": str(tmp_path / "home"), "snapshot_mode": mode}})
    agent = configuration.load(machine.config_dir)
    source.mkdir()
    # Directories of these names with files in them, on two levels, and files of these names.
    for above in (source, source / "directories" / "inner"):
        for name in NAMES:
            (above / name / "deep").mkdir(parents=True)
            (above / name / "deep" / name).write_text(name)
            (above / name / "file").write_text(name)
    (source / "files").mkdir()
    for name in NAMES:
        (source / "files" / name).write_text(name)
    machine.ping()
    [(address, _sources)] = checkin.by_storage(checkin.active_sources(agent))
    # The name that a restore draws without its lot is known to everybody.
    target = tmp_path / "first"
    order = RestoreJob("home", address, target)
    foreseen = source / f".turku-restore-{order.digest('')[:32]}"
    for name in (foreseen.name, f"{foreseen.name}-partial"):
        (source / name).mkdir()
        (source / name / "mine").write_text("mine")
    (source / ".turku-nothing" / "file").write_text("changed")
    (source / "files" / ".turku-nothing").write_text("changed")
    fleet.make_due(machine)
    machine.ping()

    listed = programs.run("turku-agent", "ls", "--config-dir", machine.config_dir, "home", "--json")
    assert {row["path"] for row in json.loads(listed.stdout)} == set(os.listdir(source))
    restored = restore_run.restore(agent, order)
    assert (restored.state, restored.problems) == ("whole", ())
    assert differences(source, target) == []
    for path in (source / ".turku-restore", source / ".turku-restore-partial"):
        (path / "file").write_text("lost")
        (path / "deep" / path.name).unlink()
    (source / "files" / ".turku-restore").unlink()
    restored = restore_run.restore(agent, RestoreJob("home", address, source, delete=True))
    assert (restored.state, restored.problems) == ("whole", ())
    assert differences(target, source) == []
