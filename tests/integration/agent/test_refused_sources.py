"""turku-update-config with a bad source: the good ones are sent and taken, and the bad one is named."""

import json
from pathlib import Path

from tests.integration.agent.conftest import Machine
from tests.support.v1_server import V1Api


def test_a_source_that_the_machine_cannot_use_is_told_and_keeps_no_other_out(machine: Machine, api: V1Api) -> None:
    machine.source("etc", "/etc")
    machine.source("home", "/home")
    assert machine.run("turku-update-config").returncode == 0
    machine.source("etc", "etc")
    update = machine.run("turku-update-config")
    assert update.returncode == 65
    assert "not taken: 1 source (etc)" in update.stderr
    assert "etc.json, line 1: etc: path: 'etc' is not an absolute path" in update.stderr
    assert "no longer declared" not in update.stderr
    second = api.of_call("update_config")[-1]
    assert second["takes_part"]
    assert set(second["machine"]["sources"]) == {"home"}
    assert set(second["machine"]["unusable_sources"]) == {"etc"}


def test_problems_are_said_where_the_coordinator_accepts_anything(machine: Machine) -> None:
    machine.source("etc", "/etc", frequency="dayly")
    update = machine.run("turku-update-config")
    assert update.returncode == 0
    assert "etc.json, line 1: etc: frequency: 'dayly' is not a valid frequency" in update.stderr


def test_a_bad_source_keeps_no_other_from_its_backup(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_text("x")
    machine.source("data", tmp_path / "data")
    machine.register()
    (machine.config_dir / "sources.d/bad.json").write_text(json.dumps({"../bad": {"path": "/etc"}, "word": "/etc"}))
    ping = machine.ping()
    assert ping.returncode == 0, ping.stderr
    assert "bad.json, line 1: ../bad: " in ping.stderr
    assert (machine.backed_up("data") / "file").exists()
