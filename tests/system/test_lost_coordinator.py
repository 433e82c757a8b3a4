"""A coordinator is lost without a copy: what its storage knows is enough, and each machine comes back by a code."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.coordinator import Coordinator
from tests.support.fleet import Fleet

from turku.core import command
from turku.demo import programs
from turku.errors import ApiForbidden


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """A fleet of its own, whose coordinator gets lost."""
    with Fleet(tmp_path / "fleet") as running:
        running.storage("primary")
        yield running


def change(path: Path, **keys: Any) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **keys}))


def test_history_continues_with_a_new_coordinator(fleet: Fleet, tmp_path: Path, files: Path) -> None:
    storage = fleet.storages["primary"]
    machine = fleet.machine(
        "web-2", {"files": {"path": str(files), "retention": "last 9 days"}}, environment_name="production"
    )
    machine.ping()
    assert len(fleet.snapshots(machine, "files")) == 1
    old_uuid = machine.uuid
    fleet.coordinator.stop()

    def recover_coordinator(*arguments: str, code: int = 0) -> str:
        argv = ("turku-storage", "recover-coordinator", "--config-dir", storage.config_dir, *arguments)
        ended = programs.run(*map(str, argv), expected_codes=(code,))
        return "\n".join((ended.stdout.decode(), *ended.last_lines))

    with Coordinator(tmp_path / "new") as new:
        secret = new.create_auth("storage_reg")
        change(storage.config_dir / "config.d" / "storage.json", api_url=new.url, api_auth=secret)
        # More than one answer of a coordinator that knows nobody.
        for _ in range(3):
            storage.update_config()
        refused = recover_coordinator(code=ApiForbidden.exit_code)
        assert "is not recovering from storages" in refused
        said = new.manage("recover", "--from-storages")
        assert "turku-storage recover-coordinator" in said
        assert f"{old_uuid}\tproduction-web-2\tfiles" in recover_coordinator("--dry-run")
        assert "recovered" in recover_coordinator()
        assert f"production-web-2  {old_uuid}  primary  waits" in new.manage("recover", "--from-storages")

        code = new.manage("machine", "re-enrol", "web-2", "--raw").strip()
        change(machine.config_dir / "config.d" / "agent.json", api_url=new.url)
        command.run(
            [programs.DIRECTORY / "turku-agent", "re-enrol", "--config-dir", machine.config_dir],
            timeout_seconds=60,
            input_bytes=f"{code}\n".encode(),
        )
        assert machine.uuid == old_uuid
        [source] = new.sql("SELECT path, retention FROM backups_source")
        assert source == {"path": str(files), "retention": "last 9 days"}
        machine.update_config()
        storage.update_config()
        (files / "new.txt").write_text("new\n")
        machine.ping()
        first, second = storage.snapshots(old_uuid, "files")
        assert (first / "a.txt").stat().st_ino == (second / "a.txt").stat().st_ino
        assert (second / "new.txt").read_text() == "new\n"
        [run] = new.sql("SELECT strategy, success FROM backups_backuprun")
        assert run["strategy"] == "incremental"
        assert "is back" in new.manage("recover", "--from-storages")
        new.manage("recover", "--end")
        assert "is not recovering" in recover_coordinator(code=ApiForbidden.exit_code)
