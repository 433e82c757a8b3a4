"""The numbered steps of a backup (contract, "A backup session"), seen by programs that stand before rsync and ssh."""

import json
import re
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.support.fleet import Fleet
from tests.support.recorder import Recorder
from tests.support.trees import snapshot_differences

from turku.core.command import CompletedProgram
from turku.demo.private_machine import LOCAL_ADDRESS, PrivateMachine
from turku.demo.private_storage import PrivateStorage

pytestmark = pytest.mark.xdist_group("system-steps")


@dataclass
class Backup:
    """One ping with two due sources, and everything that was noted of it."""

    fleet: Fleet
    machine: PrivateMachine
    storage: PrivateStorage
    tree: Path
    ping: CompletedProgram
    machine_notes: Recorder
    storage_notes: Recorder

    @property
    def ssh(self) -> dict[str, Any]:
        [call] = self.machine_notes.calls("ssh")
        return call

    @property
    def ssh_options(self) -> dict[str, str]:
        argv = self.ssh["argv"]
        words = [word for before, word in zip(["", *argv], argv, strict=False) if before == "-o"]
        return dict(word.split("=", maxsplit=1) for word in words)

    @property
    def rsyncd(self) -> dict[str, Any]:
        [call] = self.machine_notes.calls("rsyncd")
        return call

    @property
    def request(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self.ssh["stdin"].splitlines()[0])
        return message

    @property
    def rsyncd_configuration(self) -> str:
        [text] = [kept["text"] for kept in self.rsyncd["files"].values() if "[" in kept["text"]]
        return str(text)

    def module(self, name: str) -> dict[str, str]:
        """The settings of one module of the agent's rsyncd, and the global ones."""
        settings: dict[str, str] = {}
        section = None
        for line in self.rsyncd_configuration.splitlines():
            if line.strip().startswith("["):
                section = line.strip().strip("[]")
            elif "=" in line and section in (None, name):
                key, _, value = line.partition("=")
                settings[key.strip()] = value.strip()
        return settings


@pytest.fixture(scope="module")
def backup(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Backup:
    directory = tmp_path_factory.mktemp("steps")
    tree = directory / "tree"
    tree.mkdir()
    (tree / "file").write_text("content\n")
    machine_notes, storage_notes = Recorder(directory / "machine"), Recorder(directory / "storage")
    storage = fleet.storage("steps", rsync_command=storage_notes.rsync_command, sandbox="off")
    machine = fleet.machine(
        "steps-machine",
        {"one": {"path": str(tree)}, "two": {"path": str(tree)}, "not-due": {"path": str(tree)}},
        storage=storage,
        ssh_command=machine_notes.ssh_command,
        rsyncd_command=machine_notes.rsyncd_command,
    )
    fleet.execute("UPDATE backups_source SET date_next_backup = '2099-01-01 00:00:00' WHERE name = 'not-due'")
    ping = machine.ping()
    return Backup(fleet, machine, storage, tree, ping, machine_notes, storage_notes)


def test_step_1_one_time_names_and_passwords_for_what_is_due_and_a_port_of_the_dynamic_range(backup: Backup) -> None:
    assert set(backup.request["sources"]) == {"one", "two"}
    assert 49152 <= backup.request["port"] <= 65535
    users = [credentials["username"] for credentials in backup.request["sources"].values()]
    passwords = [credentials["password"] for credentials in backup.request["sources"].values()]
    assert len({str(uuid.UUID(user)) for user in users}) == 2
    assert len(set(passwords)) == 2
    for password in passwords:
        assert re.fullmatch(r"[A-Za-z0-9]{30}", password)


def test_step_2_rsyncd_offers_one_read_only_module_per_due_source(backup: Backup) -> None:
    assert "--daemon" in backup.rsyncd["argv"]
    assert "--no-detach" in backup.rsyncd["argv"]
    assert re.findall(r"^\s*\[(.+)\]", backup.rsyncd_configuration, re.MULTILINE) == ["one", "two"]
    for name in ("one", "two"):
        module = backup.module(name)
        assert Path(module["path"]) == backup.tree
        assert module["read only"] in ("true", "yes")
        assert module["list"] in ("false", "no")
        credentials = backup.request["sources"][name]
        assert module["auth users"] == credentials["username"]
        secrets_file = backup.rsyncd["files"][module["secrets file"]]
        assert secrets_file["text"].split() == [f"{credentials['username']}:{credentials['password']}"]
        assert secrets_file["mode"] == 0o600


def test_step_2_rsyncd_listens_on_the_drawn_port_of_loopback(backup: Backup) -> None:
    words = " ".join((*backup.rsyncd["argv"], *backup.rsyncd_configuration.split()))
    assert LOCAL_ADDRESS in words
    assert str(backup.request["port"]) in words


def test_step_3_ssh_trusts_exactly_the_keys_that_the_coordinator_gave(backup: Backup) -> None:
    options = backup.ssh_options
    assert "-T" in backup.ssh["argv"]
    assert options["BatchMode"] == "yes"
    assert options["StrictHostKeyChecking"] == "yes"
    known_hosts = backup.ssh["files"][options["UserKnownHostsFile"].strip('"')]["text"]
    sshd = backup.fleet.sshds["steps"]
    assert [line.split(maxsplit=1)[1] for line in known_hosts.splitlines()] == sshd.host_keys


def test_step_3_ssh_uses_the_machines_own_key_and_one_reverse_tunnel(backup: Backup) -> None:
    argv = backup.ssh["argv"]
    port = backup.request["port"]
    assert argv[argv.index("-R") + 1] == f"{port}:{LOCAL_ADDRESS}:{port}"
    assert backup.ssh_options["IdentityFile"].strip('"') == str(backup.machine.var_dir / "ssh_key")
    assert backup.ssh_options["IdentitiesOnly"] == "yes"
    assert argv[-1] == "turku-ping-remote"


def test_step_4_the_request_is_json_ended_by_a_dot_and_stdin_stays_open(backup: Backup) -> None:
    # What follows the end of the request is what a storage of ours asks for, and no other is sent.
    assert backup.ssh["stdin"].splitlines()[1] == "."
    assert set(backup.request) == {"verbose", "action", "port", "sources", "moment_ns"}
    assert backup.request["verbose"] is True
    assert backup.request["action"] == "checkin"
    assert not backup.ssh["stdin_ended"]
    assert backup.ssh["exit_code"] == 0


def test_step_4_the_storages_progress_comes_back_to_the_machine(backup: Backup) -> None:
    shown = "\n".join(backup.ping.last_lines)
    assert "one" in shown
    assert "two" in shown
    assert re.search(r"steps\W+INFO", shown)


def test_step_5_rsync_fetches_each_source_through_the_tunnel(backup: Backup) -> None:
    calls = [call for call in backup.storage_notes.calls("rsync") if "rsync://" in " ".join(call["argv"])]
    port = backup.request["port"]
    fetched = [word for call in calls for word in call["argv"] if word.startswith("rsync://")]
    # Several sources are fetched at once, in no order.
    assert sorted(set(fetched)) == sorted(
        f"rsync://{backup.request['sources'][name]['username']}@127.0.0.1:{port}/{name}/" for name in ("one", "two")
    )


def test_step_5_each_source_is_reported_and_moves_on(backup: Backup) -> None:
    for name in ("one", "two"):
        [run] = backup.fleet.runs(backup.machine, name)
        assert run["success"]
        assert backup.fleet.source_state(backup.machine, name)["date_next_backup"] > run["date_end"]
    assert backup.fleet.runs(backup.machine, "not-due") == []


def test_step_5_the_storage_knows_the_machine_by_the_key_alone(backup: Backup) -> None:
    [line] = [
        line
        for line in backup.fleet.sshds["steps"].authorized_keys.read_text().splitlines()
        if backup.machine.uuid in line
    ]
    assert f"turku-storage-ping --config-dir {backup.storage.config_dir} {backup.machine.uuid}" in line
    assert "restrict" in line
    assert 'permitlisten="localhost:*"' in line
    own_key = (backup.machine.var_dir / "ssh_key.pub").read_text().split()[1]
    assert own_key in line


def _back_up_one(backup: Backup, exit_code: int) -> dict[str, Any]:
    """The state of source ``one`` after a backup whose rsync ended so."""
    backup.storage_notes.end_rsync_with(exit_code)
    backup.fleet.make_due(backup.machine, "one")
    try:
        backup.machine.ping(check=False)
    finally:
        backup.storage_notes.end_rsync_with(None)
    return backup.fleet.source_state(backup.machine, "one")


def test_step_5_files_that_vanish_meanwhile_are_no_failure(backup: Backup) -> None:
    before = len(backup.fleet.snapshots(backup.machine, "one"))
    state = _back_up_one(backup, 24)
    assert state["success"]
    assert state["failure_count"] == 0
    assert len(backup.fleet.snapshots(backup.machine, "one")) == before + 1


def test_step_5_any_other_end_of_rsync_is_a_failure_that_leaves_no_snapshot(backup: Backup) -> None:
    snapshots = backup.fleet.snapshots(backup.machine, "one")
    state = _back_up_one(backup, 23)
    assert not state["success"]
    assert state["failure_count"] == 1
    assert backup.fleet.snapshots(backup.machine, "one") == snapshots
    run = backup.fleet.runs(backup.machine, "one")[-1]
    assert not run["success"]
    assert "23" in run["summary"]
    # And the next good one is good again.
    backup.fleet.make_due(backup.machine, "one")
    backup.machine.ping()
    assert backup.fleet.source_state(backup.machine, "one")["failure_count"] == 0
    assert snapshot_differences(backup.tree, backup.fleet.snapshots(backup.machine, "one")[-1]) == []
