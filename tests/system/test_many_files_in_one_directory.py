"""A directory of more files than a restore keeps in mind is verified to the last of them, whoever is ahead."""

import time
from pathlib import Path
from typing import Any

import pytest
from tests.support.fleet import Fleet
from tests.system.conftest import MakeMachine

from turku.agent import checkin
from turku.agent.config import loading as configuration
from turku.agent.restore import run as restore_run
from turku.agent.restore import verification
from turku.agent.restore.job import RestoreJob
from turku.agent.restore.verification import Verification

FILES = 5000


@pytest.mark.parametrize("late", ["expect", "received"])
def test_all_of_many_files_are_verified(
    fleet: Fleet, make_machine: MakeMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: str
) -> None:
    source = tmp_path / "home"
    (source / "one").mkdir(parents=True)
    for number in range(FILES):
        (source / "one" / f"file-{number}").write_text(str(number))
    machine = make_machine({"home": {"path": str(source)}})
    machine.ping()
    agent = configuration.load(machine.config_dir)
    [(address, _sources)] = checkin.by_storage(checkin.active_sources(agent))

    # What was named, or what came, is far ahead of the other, and is more than is kept.
    monkeypatch.setattr(verification, "_WAITING_LIMIT", 100)
    took_its_time: list[bool] = []
    slow = getattr(Verification, late)

    def slowly(self: Verification, *arguments: Any) -> None:
        if not took_its_time:
            took_its_time.append(True)
            time.sleep(3)
        slow(self, *arguments)

    monkeypatch.setattr(Verification, late, slowly)
    restored = restore_run.restore(agent, RestoreJob("home", address, tmp_path / "all"))
    assert restored.problems == ()
    assert (restored.state, restored.files, restored.verified) == ("whole", FILES, FILES)
    again = restore_run.restore(agent, RestoreJob("home", address, tmp_path / "all"))
    assert (again.state, again.files, again.verified) == ("whole", FILES, FILES)
