"""``turku-storage-update-config`` against a real coordinator: registering, reporting space, admitting machines."""

import fcntl
import json
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.coordinator import Coordinator
from tests.support.storage_host import StorageHost
from tests.support.v1_client import V1Machine

from turku.core import command


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Coordinator]:
    with Coordinator(tmp_path_factory.mktemp("coordinator")) as running:
        yield running


@pytest.fixture(scope="module")
def storage_auth(coordinator: Coordinator) -> str:
    return coordinator.create_auth("storage_reg")


@pytest.fixture
def storage(coordinator: Coordinator, storage_auth: str, tmp_path: Path, request: pytest.FixtureRequest) -> Any:
    name = request.node.name[:60].replace("[", "-").replace("]", "")
    with StorageHost(tmp_path / "storage", api_url=coordinator.url, api_auth=storage_auth, name=name) as running:
        yield running


def stored(coordinator: Coordinator, name: str) -> dict[str, Any]:
    """Return the coordinator's row of a storage."""
    [row] = coordinator.sql("SELECT * FROM fleet_storage WHERE name = ?", name)
    return row


def test_registers_and_reports_space_and_address(coordinator: Coordinator, storage: StorageHost) -> None:
    storage.update_config()
    row = stored(coordinator, storage.name)
    status = os.statvfs(storage.volume)
    assert row["space_total"] == pytest.approx(status.f_blocks * status.f_frsize / 1024**2)
    assert 0 < row["space_available"] <= row["space_total"]
    assert row["ssh_ping_port"] == storage.sshd.port
    assert storage.sshd.host_keys[0] in row["ssh_ping_host_keys"]
    # Once registered, the registration string is needed no more.
    storage.write_configuration(api_auth=None)
    storage.update_config()


def test_a_host_key_that_is_to_come_is_sent_beside_the_one_in_use(
    coordinator: Coordinator, storage: StorageHost
) -> None:
    in_use = storage.sshd.directory / "ssh_host_ed25519_key.pub"
    in_use.write_text(f"{storage.sshd.host_keys[0]} root@storage\n")
    command.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", in_use.with_name("ssh_host_ed25519_next_key")],
        timeout_seconds=20,
    )
    to_come = " ".join(in_use.with_name("ssh_host_ed25519_next_key.pub").read_text().split()[:2])
    glob = str(in_use.with_name("ssh_host_*_key.pub"))
    storage.write_configuration(ssh_ping_host_keys=None, ssh_ping_host_keys_glob=glob)
    storage.update_config()
    sent = json.loads(stored(coordinator, storage.name)["ssh_ping_host_keys"])
    assert sent == [storage.sshd.host_keys[0], to_come]
    in_use.unlink()
    storage.update_config()
    assert json.loads(stored(coordinator, storage.name)["ssh_ping_host_keys"]) == [to_come]


def test_registers_by_name_and_secret_of_the_command_line(coordinator: Coordinator, storage: StorageHost) -> None:
    storage.write_configuration(api_auth=None)
    secret = coordinator.create_auth("storage_reg", name="named")
    storage.update_config("--api-auth-name", "named", "--api-auth-secret", secret)
    assert stored(coordinator, storage.name)["published"]


def test_without_a_registration_the_error_says_what_to_do(storage: StorageHost) -> None:
    storage.write_configuration(api_auth=None)
    completed = storage.update_config(check=False)
    assert completed.exit_code == 77
    assert "turku-api join-token create storage" in "\n".join(completed.last_lines)
    assert not storage.authorized_keys.exists()


def test_half_a_registration_is_a_usage_error(storage: StorageHost) -> None:
    assert storage.update_config("--api-auth-name", "named", check=False).exit_code == 64


def test_published_and_comment_are_sent(coordinator: Coordinator, storage: StorageHost) -> None:
    storage.write_configuration(published=False, comment="in the cellar")
    storage.update_config()
    row = stored(coordinator, storage.name)
    assert (row["published"], row["comment"]) == (0, "in the cellar")


def test_admits_its_machines_and_keeps_the_static_lines(coordinator: Coordinator, storage: StorageHost) -> None:
    storage.update_config()
    machine = registered_machine(coordinator, storage)
    static = storage.authorized_keys.with_name("authorized_keys.static")
    static.write_text("# the operator's\nssh-ed25519 AAAA operator")
    storage.update_config()
    first, second = storage.lines
    assert first == "ssh-ed25519 AAAA operator"
    assert f" {machine.uuid} " in second
    assert second.startswith("restrict,")
    assert stat.S_IMODE(storage.authorized_keys.stat().st_mode) == 0o600
    assert stat.S_IMODE(storage.authorized_keys.parent.stat().st_mode) == 0o700


def test_a_machine_that_is_disabled_loses_its_line(coordinator: Coordinator, storage: StorageHost) -> None:
    storage.update_config()
    machine = registered_machine(coordinator, storage)
    storage.update_config()
    assert len(storage.lines) == 1
    machine.update_config({}, published=False)
    storage.update_config()
    assert storage.lines == []


def test_lines_that_turku_did_not_write_are_not_lost(storage: StorageHost) -> None:
    storage.authorized_keys.parent.mkdir(parents=True)
    storage.authorized_keys.write_text("ssh-ed25519 AAAA operator\n")
    completed = storage.update_config(check=False)
    assert completed.exit_code == 78
    assert "authorized_keys.static" in "\n".join(completed.last_lines)
    assert storage.authorized_keys.read_text() == "ssh-ed25519 AAAA operator\n"


def test_two_runs_do_not_overlap(storage: StorageHost) -> None:
    storage.update_config()
    lock = storage.var_dir / "lock" / "update-config.lock"
    with lock.open("r+") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        assert storage.update_config(check=False).exit_code == 75


def test_a_random_part_of_the_wait_is_slept_first(storage: StorageHost) -> None:
    assert storage.update_config("--wait", "0.05").exit_code == 0
    assert storage.update_config("--wait", "soon", check=False).exit_code == 64


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user")
def test_root_writes_for_another_user_and_follows_none_of_its_links(storage: StorageHost, tmp_path: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, nobody.pw_uid, nobody.pw_gid)
    for directory in (tmp_path, *tmp_path.parents):
        if directory.name.startswith(("pytest-", "popen-")):
            directory.chmod(0o711)
    tmp_path.chmod(0o711)
    secret = tmp_path / "secret"
    secret.write_text("of root's alone\n")
    secret.chmod(0o600)
    keys = home / ".ssh" / "authorized_keys"
    storage.write_configuration(authorized_keys_file=str(keys), authorized_keys_user="nobody")
    tmp_path.chmod(0o700)
    completed = storage.update_config(check=False)
    assert completed.exit_code == 78
    assert "cannot be reached by the user" in "\n".join(completed.last_lines)
    tmp_path.chmod(0o711)
    completed = storage.update_config(check=False)
    assert completed.exit_code == 0, completed.last_lines
    assert keys.stat().st_uid == keys.parent.stat().st_uid == nobody.pw_uid
    assert stat.S_IMODE(keys.parent.stat().st_mode) == 0o700
    keys.with_name("authorized_keys.static").symlink_to(secret)
    before = keys.read_bytes()
    assert storage.update_config(check=False).exit_code == 78
    assert keys.read_bytes() == before
    roots = tmp_path / "roots"
    roots.mkdir()
    keys.parent.rename(home / "aside")
    keys.parent.symlink_to(roots)
    assert storage.update_config(check=False).exit_code == 73
    assert list(roots.iterdir()) == []


def test_check_shows_what_is_used_and_what_stands_in_the_way(storage: StorageHost) -> None:
    storage.write_configuration(
        volumes={"data": {"path": str(storage.volume), "accept_new_high_water_pct": 100}, "gone": {"path": "/gone"}},
        accept_new_high_water_percent=3,
    )
    completed: command.CompletedProgram = storage.run("turku-storage", "check", check=False)
    said = completed.stdout.decode()
    assert completed.exit_code == 1
    assert f"volume data: {storage.volume}" in said
    assert "PROBLEM: volume gone: /gone is not there" in said
    assert "did you mean 'accept_new_high_water_pct'?" in "\n".join(completed.last_lines)


def registered_machine(coordinator: Coordinator, storage: StorageHost) -> V1Machine:
    """A machine of this storage."""
    machine = V1Machine(coordinator.post, coordinator.create_auth("machine_reg"))
    machine.update_config({})
    coordinator.sql(
        "UPDATE fleet_machine SET storage_id = (SELECT id FROM fleet_storage WHERE name = ?) WHERE uuid = ?",
        *(storage.name, coordinator.key(machine.uuid)),
    )
    return machine
