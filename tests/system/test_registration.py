"""The identity of a machine or storage, across lost state, repeated registration and the other kinds of
configuration."""

import json
import shutil
import stat
import uuid
from pathlib import Path

import yaml
from tests.support.fleet import Fleet
from tests.system.conftest import MakeMachine

from turku.demo import programs
from turku.demo.private_storage import PrivateStorage


def test_the_identity_is_made_once_and_for_the_owner_alone(
    fleet: Fleet, make_machine: MakeMachine, files: Path
) -> None:
    machine = make_machine({"files": {"path": str(files)}})
    path = machine.var_dir / "config.d" / "10-machine_uuid.json"
    content = json.loads(path.read_text())
    assert uuid.UUID(content["machine_uuid"]).version == 4
    assert len(content["machine_secret"]) == 30
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((machine.var_dir / "ssh_key").stat().st_mode) == 0o600
    assert (machine.var_dir / "ssh_key.pub").read_text().split()[2] == "turku"
    machine.update_config()
    assert json.loads(path.read_text()) == content


def test_a_machine_that_lost_its_state_becomes_a_new_one_and_the_old_history_stays(
    fleet: Fleet, make_machine: MakeMachine, files: Path, storage: PrivateStorage
) -> None:
    machine = make_machine({"files": {"path": str(files)}})
    machine.ping()
    former = machine.uuid
    shutil.rmtree(machine.var_dir)
    machine.update_config()
    assert machine.uuid != former
    fleet.assign(machine, storage)
    storage.update_config()
    machine.ping()
    assert len(storage.snapshots(former, "files")) == 1
    assert len(storage.snapshots(machine.uuid, "files")) == 1
    assert not storage.machine_directory(former).samefile(storage.machine_directory(machine.uuid))


def test_a_machine_restored_with_its_state_is_the_same_and_needs_no_registration_string(
    fleet: Fleet, make_machine: MakeMachine, files: Path, tmp_path: Path
) -> None:
    machine = make_machine({"files": {"path": str(files)}})
    machine.ping()
    former = machine.uuid
    shutil.copytree(machine.var_dir, tmp_path / "saved")
    shutil.rmtree(machine.var_dir)
    shutil.copytree(tmp_path / "saved", machine.var_dir)
    path = machine.config_dir / "config.d" / "agent.json"
    content = json.loads(path.read_text())
    del content["api_auth"]
    path.write_text(json.dumps(content))

    machine.update_config()
    fleet.make_due(machine)
    machine.ping()

    assert machine.uuid == former
    assert len(fleet.snapshots(machine, "files")) == 2


def test_name_and_secret_register_too(fleet: Fleet, files: Path) -> None:
    secret = fleet.coordinator.create_auth("machine_reg", name="named machines")
    machine = fleet.unregistered_machine("named", {"files": {"path": str(files)}})
    path = machine.config_dir / "config.d" / "agent.json"
    content = json.loads(path.read_text())
    del content["api_auth"]
    path.write_text(json.dumps(content))
    programs.run(
        *("turku-update-config", "--config-dir", machine.config_dir),
        *("--api-auth-name", "named machines", "--api-auth-secret", secret),
    )
    assert fleet.source_names(machine) == ["files"]


def test_a_machine_without_credentials_is_refused_with_a_sentence(fleet: Fleet, files: Path) -> None:
    machine = fleet.unregistered_machine("stranger", {"files": {"path": str(files)}}, api_auth="w" * 30)
    completed = programs.run("turku-update-config", "--config-dir", machine.config_dir, expected_codes=(77,))
    assert "Traceback" not in "\n".join(completed.last_lines)
    assert "refused with 403" in "\n".join(completed.last_lines)


def test_configuration_may_be_yaml_and_spread_over_files(
    fleet: Fleet, make_machine: MakeMachine, files: Path, storage: PrivateStorage
) -> None:
    machine = fleet.unregistered_machine("yaml", {})
    json_path = machine.config_dir / "config.d" / "agent.json"
    content = json.loads(json_path.read_text())
    json_path.unlink()
    (machine.config_dir / "config.d" / "10-agent.yaml").write_text(yaml.safe_dump({**content, "unit_name": "hidden"}))
    (machine.config_dir / "config.d" / "20-name.json").write_text(json.dumps({"unit_name": "yaml-unit"}))
    sources = machine.config_dir / "sources.d"
    (sources / "sources.json").unlink()
    (sources / "10-files.yaml").write_text(f"files:\n  path: {files}\n  exclude:\n    - a.txt\n")
    (sources / "20-more.json").write_text(json.dumps({"files": {"comment": "merged"}, "no-path": {"comment": "none"}}))

    machine.update_config()
    fleet.assign(machine, storage)
    storage.update_config()
    machine.ping()

    assert fleet.source_names(machine) == ["files"]
    [snapshot] = fleet.snapshots(machine, "files")
    assert not (snapshot / "a.txt").exists()
    assert (snapshot / "b.txt").exists()
    assert (storage.var_dir / "machines" / "yaml-unit").exists()


def test_a_machine_of_the_existing_system_gets_its_key_onto_our_storage(
    fleet: Fleet, make_machine: MakeMachine, storage: PrivateStorage
) -> None:
    existing = fleet.v1_machine(unit_name="existing")
    existing.update_config({"etc": {"path": "/etc"}})
    fleet.execute("UPDATE fleet_machine SET storage_id = 1 WHERE unit_name = 'existing'")
    storage.update_config()
    assert existing.ssh_public_key.split()[1] in fleet.sshds["primary"].authorized_keys.read_text()
    [order] = existing.due().values()
    assert order["storage"]["name"] == "primary"
    assert order["storage"]["ssh_ping_host_keys"] == fleet.sshds["primary"].host_keys
    assert set(fleet.v1_storage(storage).due(existing.uuid)) == {"etc"}


def test_keys_that_the_operator_added_by_hand_stay(fleet: Fleet, make_machine: MakeMachine) -> None:
    storage = fleet.storages.get("static") or fleet.storage("static")
    keys = fleet.sshds["static"].authorized_keys
    own = fleet.sshds["static"].new_key("operator").with_suffix(".pub").read_text()
    keys.with_name(f"{keys.name}.static").write_text(own)
    storage.update_config()
    assert own.strip() in keys.read_text().splitlines()
