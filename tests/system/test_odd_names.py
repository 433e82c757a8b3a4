"""Files of any name, with all the programs: backed up, tried by a drill, compared, and restored by their paths."""

import json
import os
from dataclasses import replace
from pathlib import Path

from tests.support import odd_names
from tests.support.fleet import Fleet
from tests.support.odd_names import NAMES, content

from turku.agent import checkin
from turku.agent.config import loading as configuration
from turku.agent.restore import run as restore_run
from turku.agent.restore.job import RestoreJob
from turku.demo import programs


def test_a_file_comes_back_whatever_it_is_called(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    directory = os.open(source, os.O_RDONLY | os.O_DIRECTORY)
    odd_names.write(directory)
    os.close(directory)
    with Fleet(tmp_path / "fleet") as fleet:
        storage = fleet.storage("primary", drill_files=10_000)
        machine = fleet.machine("web-0", {"etc": {"path": str(source)}})
        machine.ping()
        made = programs.run("turku-storage", "drill", "--json", "--config-dir", storage.config_dir)
        [drill] = json.loads(made.stdout)
        assert (drill["problems"], drill["files"]) == ([], len(NAMES))

        agent = configuration.load(machine.config_dir)
        [(address, _sources)] = checkin.by_storage(checkin.active_sources(agent))
        order = RestoreJob("etc", address, tmp_path / "all")
        restored = restore_run.restore(agent, order)
        assert (restored.state, restored.files, restored.unverifiable) == ("whole", len(NAMES), 0), restored.problems
        assert kept(tmp_path / "all") == {name: content(name) for name in NAMES}

        some = NAMES[::2]
        restored = restore_run.restore(agent, replace(order, target=tmp_path / "some", paths=some))
        assert (restored.state, restored.files, restored.unverifiable) == ("whole", len(some), 0), restored.problems
        assert kept(tmp_path / "some") == {name: content(name) for name in some}


def kept(target: Path) -> dict[bytes, bytes]:
    directory = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return odd_names.read(directory)
    finally:
        os.close(directory)
