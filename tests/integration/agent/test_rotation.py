"""turku-agent rotate-keys and re-enrol, against our coordinator, also when they break off at any step."""

import json
import os
import stat
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from tests.support.fleet import Fleet
from tests.support.killed import killed_at_step
from tests.support.restore_mode import restore_mode
from tests.support.v1_server import V1Api

from turku.agent import checkin
from turku.agent.commands import setup
from turku.agent.config import loading as configuration
from turku.agent.identity import key_pair, machine_identity, rotation
from turku.demo import programs
from turku.demo.private_machine import PrivateMachine
from turku.errors import ApiRefused


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(tmp_path_factory.mktemp("rotation")) as fleet:
        fleet.storage("primary")
        yield fleet


@pytest.fixture
def machine(fleet: Fleet, tmp_path: Path, request: pytest.FixtureRequest) -> PrivateMachine:
    """A registered machine with a source that was never backed up."""
    tree = tmp_path / "src"
    tree.mkdir()
    (tree / "file").write_text("x")
    name = request.node.name[:60].replace("[", "-").replace("]", "")
    return fleet.machine(name, {"files": {"path": str(tree)}})


def run(machine: PrivateMachine, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [programs.DIRECTORY / "turku-agent", *words, "--config-dir", machine.config_dir],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def secret(machine: PrivateMachine) -> str:
    content = json.loads((machine.var_dir / "config.d/10-machine_uuid.json").read_text())
    return str(content["machine_secret"])


def public_key(machine: PrivateMachine) -> str:
    return " ".join((machine.var_dir / "ssh_key.pub").read_text().split()[:2])


def key_at_the_coordinator(fleet: Fleet, machine: PrivateMachine) -> str:
    [(key,)] = fleet.query("SELECT ssh_public_key FROM fleet_machine WHERE uuid = ?", machine.uuid.replace("-", ""))
    return " ".join(str(key).split()[:2])


def is_known(fleet: Fleet, machine: PrivateMachine, its_secret: str) -> bool:
    message = {"machine": {"uuid": machine.uuid, "secret": its_secret}}
    return fleet.coordinator.call("agent_ping_checkin", message).status_code == 200


def test_both_are_new_and_the_old_ones_end(fleet: Fleet, machine: PrivateMachine) -> None:
    old_secret, old_key, uuid = secret(machine), public_key(machine), machine.uuid
    rotated = run(machine, "rotate-keys")
    assert rotated.returncode == 0, rotated.stderr
    assert machine.uuid == uuid
    assert secret(machine) != old_secret
    assert public_key(machine) not in ("", old_key)
    assert key_at_the_coordinator(fleet, machine) == public_key(machine)
    assert is_known(fleet, machine, secret(machine))
    assert not is_known(fleet, machine, old_secret)
    for path in machine.var_dir.rglob("*"):
        if path.is_file() and path.suffix != ".pub":
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    for word in (old_secret, secret(machine)):
        assert word not in rotated.stdout + rotated.stderr


def test_backups_go_on_before_the_storage_has_the_new_key_and_after(fleet: Fleet, machine: PrivateMachine) -> None:
    assert run(machine, "rotate-keys").returncode == 0
    machine.ping()
    assert len(fleet.snapshots(machine, "files")) == 1
    # The storage learns of it. The old key opens nothing there any more.
    storage = fleet.storage_of(machine)
    storage.update_config()
    for previous in machine.var_dir.glob("ssh_key.previous-*"):
        assert " ".join(public_half(previous)) not in fleet.sshds["primary"].authorized_keys.read_text()
        previous.unlink()
    fleet.make_due(machine)
    machine.ping()
    assert fleet.source_state(machine, "files")["success"]


def public_half(private: Path) -> list[str]:
    shown = subprocess.run(["ssh-keygen", "-y", "-f", private], capture_output=True, text=True, check=True)
    return shown.stdout.split()[:2]


def test_the_old_key_is_thrown_away_after_a_day(fleet: Fleet, machine: PrivateMachine) -> None:
    for _ in range(5):
        assert run(machine, "rotate-keys").returncode == 0
    agent = configuration.load(machine.config_dir)
    kept = key_pair.previous_keys(agent.state)
    assert 1 <= len(kept) <= 3
    day_ago = time.time() - key_pair.PREVIOUS_KEY_SECONDS - 60
    os.utime(kept[0], (day_ago, day_ago))
    assert kept[0] not in key_pair.previous_keys(agent.state)
    assert not kept[0].exists()


def test_killed_at_any_step_it_is_finished_by_the_next_run(fleet: Fleet, machine: PrivateMachine) -> None:
    fleet.execute("UPDATE backups_source SET date_next_backup = '2099-01-01 00:00:00'")
    step, finished = 1, set()
    while killed_at_step(step, lambda: rotation.rotate_keys(configuration.load(machine.config_dir))):
        # As every program does when it starts.
        agent = setup.settled(configuration.load(machine.config_dir))
        assert checkin.check_in(agent).storages == []
        reloaded = configuration.load(machine.config_dir)
        assert reloaded.identity.machine_secret == agent.identity.machine_secret
        assert reloaded.identity.machine_uuid == machine.uuid
        assert key_at_the_coordinator(fleet, machine) == public_key(machine)
        assert public_half(machine.var_dir / "ssh_key") == public_key(machine).split()
        assert not (machine.var_dir / machine_identity.NEW_IDENTITY_FILE).exists()
        finished.add(public_key(machine))
        step += 1
    assert step > 10
    assert len(finished) > 3
    left = {path.name for path in machine.var_dir.iterdir() if not path.name.startswith("ssh_key.previous-")}
    kept = {"config.d", "lock", "run", "ssh_key", "ssh_key.pub", "known_storages.json", "10-machine_uuid.json.copy"}
    kept |= {"declared_sources.json", "changed_entries", "versions.json"}
    assert left <= kept


def test_an_answer_that_was_lost_is_asked_for_again(fleet: Fleet, machine: PrivateMachine) -> None:
    # The coordinator accepted it, but the machine died before it heard so.
    agent = configuration.load(machine.config_dir)
    new = rotation._stage(agent, code=None)
    request = {
        "machine": {"uuid": machine.uuid, "secret": secret(machine)},
        "new_secret": new.machine_secret,
        "new_ssh_public_key": (machine.var_dir / "new_ssh_key.pub").read_text().strip(),
    }
    assert fleet.coordinator.call("machine_rotate", request).status_code == 200
    assert not is_known(fleet, machine, secret(machine))
    machine.ping()
    assert secret(machine) == new.machine_secret
    assert is_known(fleet, machine, new.machine_secret)


def test_while_the_coordinator_is_away_nothing_is_lost(fleet: Fleet, machine: PrivateMachine) -> None:
    old = secret(machine)
    fleet.coordinator.stop()
    try:
        assert run(machine, "rotate-keys").returncode == 69
        assert secret(machine) == old
    finally:
        fleet.coordinator.start()
    machine.update_config()
    assert secret(machine) != old
    assert is_known(fleet, machine, secret(machine))


def test_a_secret_that_is_set_by_hand_is_not_rotated_behind_it(machine: PrivateMachine) -> None:
    (machine.config_dir / "config.d/zz.json").write_text(json.dumps({"machine_secret": secret(machine)}))
    rotated = run(machine, "rotate-keys")
    assert rotated.returncode == 78
    assert "zz.json: machine_secret: is set by hand" in rotated.stderr


def test_a_coordinator_that_has_no_such_call_leaves_all_as_it_was(machine: PrivateMachine) -> None:
    before = {path: path.read_bytes() for path in machine.var_dir.rglob("*") if path.is_file()}
    with V1Api() as api:
        (machine.config_dir / "config.d/zz.json").write_text(json.dumps({"api_url": api.url}))
        rotated = run(machine, "rotate-keys")
    assert rotated.returncode == 77
    assert "secrets and keys are as they were" in rotated.stderr
    after = {path: path.read_bytes() for path in machine.var_dir.rglob("*") if path.is_file()}
    assert {path: content for path, content in after.items() if path.parent.name != "lock"} == {
        path: content for path, content in before.items() if path.parent.name != "lock"
    }


def test_two_at_once_do_not_mix(machine: PrivateMachine) -> None:
    agent = configuration.load(machine.config_dir)
    with machine_identity.locked(agent.state):
        assert run(machine, "rotate-keys").returncode == 75


# --- re-enrolment


def code_for(fleet: Fleet, machine: PrivateMachine) -> str:
    return str(fleet.coordinator.manage("machine", "re-enrol", machine.uuid, "--raw")).strip()


@pytest.fixture
def reinstalled(fleet: Fleet, machine: PrivateMachine, tmp_path: Path) -> PrivateMachine:
    """The same machine with an empty disk but for its configuration, after a first backup."""
    machine.ping()
    return fleet.unregistered_machine(f"fresh-{tmp_path.name}"[:60], {"files": {"path": str(tmp_path / "src")}})


def test_a_reinstalled_machine_has_its_history_again(
    fleet: Fleet, machine: PrivateMachine, reinstalled: PrivateMachine
) -> None:
    re_enrolled = run(reinstalled, "re-enrol", stdin=f"{code_for(fleet, machine)}\n")
    assert re_enrolled.returncode == 0, re_enrolled.stderr
    assert reinstalled.uuid == machine.uuid
    assert not is_known(fleet, machine, secret(machine))
    assert is_known(fleet, machine, secret(reinstalled))
    reinstalled.update_config()
    fleet.storage_of(machine).update_config()
    fleet.make_due(machine)
    reinstalled.ping()
    assert len(fleet.snapshots(machine, "files")) == 2
    with restore_mode(reinstalled) as mode:
        assert f"Machine UUID: {machine.uuid}" in mode.lines


def test_a_machine_that_had_registered_anew_takes_its_old_place(
    fleet: Fleet, machine: PrivateMachine, reinstalled: PrivateMachine
) -> None:
    reinstalled.update_config()
    newcomer = reinstalled.uuid
    re_enrolled = run(reinstalled, "re-enrol", code_for(fleet, machine))
    assert re_enrolled.returncode == 0, re_enrolled.stderr
    assert reinstalled.uuid == machine.uuid != newcomer
    assert f"This machine was {newcomer}; remove that one at the coordinator." in re_enrolled.stdout


def test_a_wrong_code_changes_nothing(machine: PrivateMachine, reinstalled: PrivateMachine) -> None:
    reinstalled.update_config()
    before = secret(reinstalled), reinstalled.uuid
    refused = run(reinstalled, "re-enrol", stdin="no such code, but a long one\n")
    assert refused.returncode == 77
    assert (secret(reinstalled), reinstalled.uuid) == before
    reinstalled.update_config()
    assert run(reinstalled, "re-enrol").returncode == 64


def re_enrol(machine: PrivateMachine, code: str) -> None:
    rotation.re_enrol(configuration.load(machine.config_dir), code)


def test_killed_at_any_step_a_re_enrolment_is_finished_by_the_next_run(
    fleet: Fleet, machine: PrivateMachine, tmp_path: Path
) -> None:
    step = 1
    while True:
        fresh = fleet.unregistered_machine(f"killed-{step}", {"files": {"path": str(tmp_path)}})
        code = code_for(fleet, machine)
        if not killed_at_step(step, partial(re_enrol, fresh, code)):
            break
        agent = setup.settled(configuration.load(fresh.config_dir))
        if agent.identity.machine_uuid is None:
            # Killed before it was written down: there is nothing to go on with, and the code is good still.
            agent = rotation.re_enrol(agent, code)
        assert agent.identity.machine_uuid == machine.uuid == fresh.uuid
        assert agent.identity.machine_secret is not None
        assert is_known(fleet, machine, agent.identity.machine_secret.reveal())
        assert key_at_the_coordinator(fleet, fresh) == public_key(fresh)
        assert public_half(fresh.var_dir / "ssh_key") == public_key(fresh).split()
        # Each code takes a coordinator to start: every third step is as good as all.
        step += 3
    assert step > 10


def test_a_code_works_once(fleet: Fleet, machine: PrivateMachine, reinstalled: PrivateMachine) -> None:
    code = code_for(fleet, machine)
    rotation.re_enrol(configuration.load(reinstalled.config_dir), code)
    thief = fleet.unregistered_machine("thief", {})
    with pytest.raises(ApiRefused):
        rotation.re_enrol(configuration.load(thief.config_dir), code)
    assert is_known(fleet, machine, secret(reinstalled))
    assert not (thief.var_dir / machine_identity.NEW_IDENTITY_FILE).exists()


def test_keys_that_a_killed_change_left_are_removed_by_the_next_run(machine: PrivateMachine) -> None:
    agent = configuration.load(machine.config_dir)
    before = {path.name for path in machine.var_dir.rglob("*")}
    step, left = 1, 0
    # Killed before the coordinator is told, at any step: what there is of new keys was never in use.
    while killed_at_step(step, lambda: rotation._stage(agent, code=None)):
        if not (machine.var_dir / "new_identity.json").exists():
            left += {path.name for path in machine.var_dir.rglob("*")} != before
            machine.ping()
            kept = {path.name for path in machine.var_dir.rglob("*")} - before
            assert not any("key" in name or "new" in name or "tmp" in name for name in kept), kept
        step += 1
    assert left > 2
