"""Machines that an operator moves or removes, with the real programs: what they are told, and what becomes of history."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.fleet import Fleet
from tests.support.restore_mode import restore_mode
from tests.support.trees import snapshot_differences

from turku.core import command
from turku.demo import programs
from turku.demo.private_machine import PrivateMachine
from turku.demo.private_storage import PrivateStorage

pytestmark = pytest.mark.xdist_group("system-moved-and-removed")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Fleet, PrivateStorage, PrivateStorage]]:
    """A fleet with two storages, of which the second accepts removals."""
    with Fleet(tmp_path_factory.mktemp("pair")) as fleet:
        yield fleet, fleet.storage("old"), fleet.storage("new", accept_removals=True, retention_floor="")


Pair = tuple[Fleet, PrivateStorage, PrivateStorage]


def agent(machine: PrivateMachine, *words: str, codes: range | tuple[int, ...] = (0,)) -> command.CompletedProgram:
    name, *others = words
    return programs.run("turku-agent", name, "--config-dir", machine.config_dir, *others, expected_codes=codes)


def printed(ended: command.CompletedProgram) -> str:
    """Return its standard error in one line."""
    return " ".join(ended.last_lines)


def turku_storage(storage: PrivateStorage, *words: str) -> str:
    return programs.run("turku-storage", *words, "--config-dir", storage.config_dir).stdout.decode()


def former(storage: PrivateStorage) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = json.loads(turku_storage(storage, "former", "list", "--json"))
    return rows


def trashed(storage: PrivateStorage, machine: str) -> list[Path]:
    directory = storage.volume / machine / "files.snapshots"
    return [entry for entry in directory.iterdir() if entry.name.startswith(".trash-") and entry.is_dir()]


def test_a_moved_machine_restores_from_both_storages(pair: Pair, files: Path, tmp_path: Path) -> None:
    fleet, old, new = pair
    machine = fleet.machine("mover", {"files": {"path": str(files)}}, storage=old)
    machine.ping()
    (files / "a.txt").write_text("changed\n")
    fleet.trust(machine, new)
    said = fleet.coordinator.manage("machine", "move", "mover", "new")
    assert "which is a full one" in said
    assert "kept until" in said
    old.update_config()
    new.update_config()
    # Before the first backup there, the new storage has nothing, and the message names the old one.
    refused = agent(machine, "ls", "files", codes=range(256))
    assert refused.exit_code != 0
    assert "--storage old" in printed(refused)
    fleet.make_due(machine)
    machine.ping()
    assert len(new.snapshots(machine.uuid, "files")) == 1
    assert len(old.snapshots(machine.uuid, "files")) == 1
    listed = json.loads(agent(machine, "snapshots", "--json").stdout.decode())
    assert [row["storage"] for row in listed] == ["new", "old"]
    assert "a.txt" in agent(machine, "ls", "files", "--storage", "old").stdout.decode()
    agent(machine, "restore", "files", "--storage", "old", "--to", str(tmp_path / "old"))
    assert (tmp_path / "old" / "a.txt").read_text() == "a\n"
    agent(machine, "restore", "files", "--to", str(tmp_path / "new"))
    assert (tmp_path / "new" / "a.txt").read_text() == "changed\n"
    with restore_mode(machine, "--restore-storage", "old") as mode:
        assert "Storage unit: old" in mode.lines
    with restore_mode(machine) as mode:
        assert "Storage unit: new" in mode.lines
    # The old storage neither backs it up nor prunes what it has.
    assert turku_storage(old, "retention", "--machine", machine.uuid).count("the machine was moved or removed") == 1
    assert (old.var_dir / "machines" / "mover").is_symlink()
    [row] = former(old)
    assert (row["name"], row["moved"], row["is_due"]) == ("mover", True, False)


def test_a_removed_machine_does_not_come_back_and_its_history_ends_by_the_storages_rules(
    pair: Pair, files: Path
) -> None:
    fleet, old, _new = pair
    machine = fleet.machine("leaver", {"files": {"path": str(files)}}, storage=old)
    machine.ping()
    fleet.make_due(machine)
    (files / "b.txt").write_text("changed\n")
    machine.ping()
    uuid = machine.uuid
    assert len(old.snapshots(uuid, "files")) == 2
    said = fleet.coordinator.manage("machine", "remove", "leaver", "--history", "trash")
    assert "History of leaver on old: to the trash." in said
    for program in ("turku-agent-ping", "turku-update-config"):
        refused = programs.run(program, "--config-dir", machine.config_dir, expected_codes=(77,))
        assert "this machine was removed by an operator on" in printed(refused)
        assert f"turku-api machine readmit {uuid}" in printed(refused)
        assert "api_auth" not in printed(refused)
    old.update_config()
    assert uuid not in fleet.sshds["old"].authorized_keys.read_text()
    # This storage does not accept removals, and its floor keeps the last days as well.
    turku_storage(old, "gc")
    assert len(old.snapshots(uuid, "files")) == 2
    turku_storage(old, "former", "remove", "leaver", "--yes")
    assert old.snapshots(uuid, "files") == []
    assert len(trashed(old, uuid)) == 2
    # What is in the trash can be brought back until it is emptied. Then nothing is left, and the coordinator knows.
    turku_storage(old, "trash", "empty", "--machine", "leaver", "--yes")
    turku_storage(old, "gc")
    assert not (old.volume / uuid).exists()
    assert not (old.volume / ".catalogs" / uuid).exists()
    assert not (old.var_dir / "machines" / uuid).is_symlink()
    old.update_config()
    old.update_config()
    assert not (old.var_dir / "machines" / "leaver").is_symlink()
    assert "leaver" not in [row["name"] for row in former(old)]
    assert "leaver" not in fleet.coordinator.manage("storage", "show", "old")
    assert "leaver" in fleet.coordinator.manage("machine", "list", "--removed")


def test_a_storage_that_accepts_removals_keeps_the_trash_for_its_days(pair: Pair, files: Path, tmp_path: Path) -> None:
    fleet, _old, new = pair
    machine = fleet.machine("returner", {"files": {"path": str(files)}}, storage=new)
    machine.ping()
    uuid = machine.uuid
    [snapshot] = new.snapshots(uuid, "files")
    fleet.coordinator.manage("machine", "remove", "returner", "--history", "trash")
    new.update_config()
    turku_storage(new, "gc")
    assert new.snapshots(uuid, "files") == []
    assert len(trashed(new, uuid)) == 1
    # Taken back: the machine is what it was, and an operator of the storage brings the snapshot back.
    assert "is known again, with its history on new" in fleet.coordinator.manage("machine", "readmit", "returner")
    machine.update_config()
    new.update_config()
    assert former(new) == []
    turku_storage(new, "trash", "restore", snapshot.name, "--machine", uuid)
    assert snapshot_differences(files, new.snapshots(uuid, "files")[0]) == []
    agent(machine, "restore", "files", "--to", str(tmp_path / "back"))
    machine.ping()
    assert len(new.snapshots(uuid, "files")) == 2


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="another process 1 takes root")
def test_a_copy_of_a_machine_that_runs_beside_it_is_told_so(pair: Pair, files: Path, tmp_path: Path) -> None:
    fleet, old, _new = pair
    machine = fleet.machine("original", {"files": {"path": str(files)}}, storage=old)
    machine.ping()
    ping = f"{programs.DIRECTORY / 'turku-agent-ping'} --config-dir {machine.config_dir}"
    # Another process 1, as in a container that was copied. It checks in once for each file "go".
    script = f"while sleep 0.05; do if rm go 2>/dev/null; then {ping} 2>said; mv said done; fi; done"
    with command.start(["unshare", "--pid", "--fork", "--mount-proc", "sh", "-c", f"cd {tmp_path}; {script}"]):
        for _ in range(2):
            machine.ping()
            (tmp_path / "go").touch()
            deadline = time.monotonic() + 60
            while not (tmp_path / "done").exists() and time.monotonic() < deadline:
                time.sleep(0.05)
            said = (tmp_path / "done").read_text()
            (tmp_path / "done").unlink()
    assert "two running systems use the identity of this machine" in " ".join(said.split())
    assert "original" in fleet.coordinator.manage("machine", "list", "--state", "copied")
    shown = json.loads(fleet.coordinator.manage("machine", "show", "original", "--json"))
    assert shown["versions"].keys() == {"turku", "python", "os", "rsync", "ssh"}
