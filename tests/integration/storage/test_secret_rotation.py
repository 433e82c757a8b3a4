"""``turku-storage rotate-secret`` against a real coordinator: whatever breaks off where, the storage stays who it is."""

import json
import os
import pwd
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.support.coordinator import Coordinator as CoordinatorServer
from tests.support.killed import killed_at_step
from tests.support.rsyncd import Rsyncd
from tests.support.sshd import free_port
from tests.support.storage_host import StorageHost
from tests.support.v1_client import V1Machine
from tests.support.v1_server import V1Api

from turku.core.secret import Secret
from turku.errors import ApiRefused, ConfigurationError
from turku.protocol.messages import (
    MachineReference,
    StorageCredentials,
    StoragePingCheckinAnswer,
    StoragePingCheckinRequest,
)
from turku.storage.config import loading as configuration
from turku.storage.config.model import StorageConfig
from turku.storage.registration import secret_rotation, update_config
from turku.storage.registration.coordinator import Coordinator


@dataclass
class Site:
    coordinator: CoordinatorServer
    storage: StorageHost
    machine_auth: str

    def machine(self, **fields: Any) -> V1Machine:
        machine = V1Machine(self.coordinator.post, self.machine_auth, **fields)
        machine.update_config({})
        return machine

    def load(self) -> StorageConfig:
        return configuration.load(self.storage.config_dir)

    @property
    def kept(self) -> Path:
        return self.storage.var_dir / "config.d" / "10-storage.json"

    @property
    def pending(self) -> Path:
        return self.storage.var_dir / "new_secret.json"

    @property
    def secret(self) -> str:
        secret: str = json.loads(self.kept.read_text())["secret"]
        return secret

    def is_taken(self, secret: str, machine: V1Machine) -> bool:
        """Return True if the coordinator knows the storage by this secret."""
        credentials = {"name": self.storage.name, "secret": secret}
        status, _ = self.coordinator.post(
            "storage_ping_checkin", {"storage": credentials, "machine": {"uuid": machine.uuid}}
        )
        return status == 200


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("site")
    with CoordinatorServer(directory / "coordinator") as coordinator:
        machine_auth = coordinator.create_auth("machine_reg")
        storage_auth = coordinator.create_auth("storage_reg")
        with StorageHost(directory / "storage", api_url=coordinator.url, api_auth=storage_auth) as storage:
            storage.update_config()
            # From now on the secret is all it has.
            storage.write_configuration(api_auth=None)
            yield Site(coordinator, storage, machine_auth)


def checkin(storage: StorageConfig, machine: V1Machine) -> str:
    """Check in as a session does, with the identity of the configuration."""

    def message(credentials: StorageCredentials) -> StoragePingCheckinRequest:
        return StoragePingCheckinRequest(credentials, MachineReference(machine.uuid))

    return Coordinator(storage).call("storage_ping_checkin", message, StoragePingCheckinAnswer).machine.uuid


def test_the_storage_has_a_new_secret_and_the_old_one_is_worth_nothing(site: Site) -> None:
    machine, old = site.machine(), site.secret
    said = site.storage.run("turku-storage", "rotate-secret")
    assert said.stdout.decode() == "storage primary has a new secret\n"
    assert site.secret != old
    assert (site.is_taken(old, machine), site.is_taken(site.secret, machine)) == (False, True)
    assert not site.pending.exists()
    assert stat.S_IMODE(site.kept.stat().st_mode) == 0o600
    site.storage.update_config()
    printed = "\n".join([*said.last_lines, said.stdout.decode(), site.storage.log])
    assert old not in printed
    assert site.secret not in printed


@pytest.mark.parametrize("next_run", ["rotate-secret", "update-config"])
def test_killed_at_any_step_it_is_known_at_once_and_the_next_run_finishes(site: Site, next_run: str) -> None:
    machine = site.machine()
    step = 1
    while killed_at_step(step, lambda: secret_rotation.rotate(site.load())):
        # A session that begins now, whichever secret the coordinator holds.
        assert checkin(site.load(), machine) == machine.uuid
        was_begun = site.pending.exists()
        if next_run == "rotate-secret":
            assert secret_rotation.rotate(site.load()) == was_begun
        else:
            update_config.update_config(site.load())
        assert not site.pending.exists()
        assert site.is_taken(site.secret, machine)
        step += 1
    # Locks, the new secret, the configuration, and what goes: each of them is more than one step.
    assert step > 5


def test_an_answer_that_is_lost_loses_nothing(site: Site) -> None:
    machine, old = site.machine(), site.secret
    # The coordinator took the new one. This storage knows of no answer.
    new = "n" * 30
    site.pending.write_text(json.dumps({"secret": new}))
    assert (
        site.coordinator.post("storage_rotate", {"storage": {"name": "primary", "secret": old}, "new_secret": new})[0]
        == 200
    )
    assert not site.is_taken(old, machine)
    assert checkin(site.load(), machine) == machine.uuid
    site.storage.update_config()
    assert (site.secret, site.pending.exists()) == (new, False)


def test_a_session_that_began_before_reports_after(site: Site, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "big").write_bytes(os.urandom(2 * 1024 * 1024))
    key = site.storage.sshd.new_key("long-runner")
    machine = site.machine(ssh_public_key=Path(f"{key}.pub").read_text().strip())
    machine.update_config({"etc": {"path": str(source)}})
    site.storage.update_config()
    site.storage.write_configuration(rsync_command=["rsync", "--bwlimit=700"])
    port = free_port()
    try:
        with Rsyncd(tmp_path / "rsyncd", {"etc": source}) as daemon:
            credentials = {"username": daemon.username, "password": daemon.password}
            request = {"verbose": True, "action": "checkin", "port": port, "sources": {"etc": credentials}}
            with site.storage.session(key, "-R", f"{port}:127.0.0.1:{daemon.port}", request=request) as side:
                side.wait_for("backup begins")
                site.storage.run("turku-storage", "rotate-secret")
                site.storage.run("turku-storage", "rotate-secret")
                assert side.wait(40) == 0, side.output
    finally:
        site.storage.write_configuration(rsync_command=None)
    assert machine.due() == {}, "the coordinator was told of the backup"


def test_after_a_refusal_that_a_proxy_may_have_sent_the_next_run_finishes(site: Site) -> None:
    machine, before = site.machine(), site.secret
    site.kept.write_text(json.dumps({"secret": "w" * 30}))
    try:
        said = site.storage.run("turku-storage", "rotate-secret", check=False)
        assert said.exit_code == 77
        assert site.pending.exists()
    finally:
        site.kept.write_text(json.dumps({"secret": before}))
    assert site.is_taken(before, machine)
    assert secret_rotation.rotate(site.load())
    assert not site.pending.exists()
    assert (site.is_taken(before, machine), site.is_taken(site.secret, machine)) == (False, True)


def test_a_coordinator_that_cannot_do_it_leaves_everything_as_it_was(site: Site) -> None:
    before = site.secret
    with V1Api() as api:
        site.storage.write_configuration(api_url=api.url)
        try:
            with pytest.raises(ApiRefused) as caught:
                secret_rotation.rotate(site.load())
        finally:
            site.storage.write_configuration(api_url=site.coordinator.url)
    assert "as they were" in caught.value.hint
    assert (site.secret, site.pending.exists()) == (before, False)


def test_a_coordinator_that_is_away_is_asked_again_by_the_next_run(site: Site) -> None:
    machine, before = site.machine(), site.secret
    site.storage.write_configuration(api_url="http://127.0.0.1:1/v1")
    said = site.storage.run("turku-storage", "rotate-secret", check=False)
    site.storage.write_configuration(api_url=site.coordinator.url)
    assert said.exit_code == 69
    assert (site.secret, site.pending.exists()) == (before, True)
    assert stat.S_IMODE(site.pending.stat().st_mode) == 0o600
    site.storage.update_config()
    assert site.secret != before
    assert site.is_taken(site.secret, machine)


def test_a_secret_set_by_hand_is_refused_with_what_to_do(site: Site) -> None:
    before = site.secret
    site.storage.write_configuration(secret=before)
    try:
        said = site.storage.run("turku-storage", "rotate-secret", check=False)
    finally:
        site.storage.write_configuration(secret=None)
    assert said.exit_code == 78
    assert "config.json: secret: is set by hand" in "\n".join(said.last_lines)
    assert site.secret == before


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user")
def test_root_does_not_take_the_secret_away_from_the_user_of_the_storage(site: Site) -> None:
    before = site.kept.stat()
    os.chown(site.kept, pwd.getpwnam("nobody").pw_uid, -1)
    try:
        with pytest.raises(ConfigurationError, match="belongs to another user") as caught:
            secret_rotation.rotate(site.load())
    finally:
        os.chown(site.kept, before.st_uid, before.st_gid)
    assert "runuser -u 'nobody'" in caught.value.hint


def test_other_secrets_are_those_on_the_disk_and_no_more(site: Site) -> None:
    loaded = site.load()
    assert secret_rotation.other_secrets(loaded, loaded.identity.secret) == []
    assert secret_rotation.other_secrets(loaded, Secret("x")) == [loaded.identity.secret]
    site.pending.write_text(json.dumps({"secret": "of this test alone " * 2}))
    assert secret_rotation.other_secrets(loaded, loaded.identity.secret) == [Secret("of this test alone " * 2)]
    site.pending.write_text("{")
    assert secret_rotation.other_secrets(loaded, loaded.identity.secret) == []
    site.pending.unlink()
