"""N1 and C6: the pinned key of a coordinator changes by its own announcement, and by nobody else's."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.storage_host import StorageHost
from tests.support.tls import HttpsServer, https_server, self_signed, signed
from tests.support.tls_coordinator import TlsCoordinator

from turku.errors import CommandFailed
from turku.protocol import join_token, pinned_keys
from turku.protocol.join_token import JoinKind

UPDATE_CONFIG = Path(sys.executable).parent / "turku-update-config"
ANSWER: dict[str, Any] = {"withdrawn": []}


class PinningMachine:
    """An agent that was set up with a join token."""

    def __init__(self, directory: Path, token: str) -> None:
        self.directory = directory
        self.var_dir = directory / "var"
        (directory / "etc/config.d").mkdir(parents=True)
        (directory / "etc/sources.d").mkdir()
        decoded = join_token.decode(token, kind=JoinKind.MACHINE)
        self.keys: dict[str, Any] = {
            "api_url": decoded.url,
            "api_auth": decoded.secret.reveal(),
            "api_key_fingerprints": list(decoded.key_fingerprints),
            "unit_name": directory.name,
            "var_dir": str(self.var_dir),
        }
        self.configure()

    def configure(self, **keys: Any) -> None:
        path = self.directory / "etc/config.d/config.json"
        path.write_text(json.dumps({**self.keys, **keys}))
        path.chmod(0o600)

    def update_config(self) -> subprocess.CompletedProcess[str]:
        argv: list[str | Path] = [UPDATE_CONFIG, "--config-dir", self.directory / "etc"]
        return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)

    def accepted(self) -> set[str]:
        return set(pinned_keys.accepted(self.keys["api_key_fingerprints"], self.var_dir))


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[TlsCoordinator]:
    with TlsCoordinator(tmp_path / "state") as coordinator:
        yield coordinator


def token_for(coordinator: TlsCoordinator, kind: str, *options: str) -> str:
    return coordinator.manage("join-token", "create", kind, "--raw", "--url", coordinator.url, *options).strip()


@pytest.fixture
def machine(coordinator: TlsCoordinator, tmp_path: Path) -> PinningMachine:
    machine = PinningMachine(tmp_path / "machine", token_for(coordinator, "machine"))
    update = machine.update_config()
    assert update.returncode == 0, update.stderr
    return machine


def refused(coordinator: TlsCoordinator, *arguments: str) -> str:
    with pytest.raises(CommandFailed) as caught:
        coordinator.manage(*arguments)
    return caught.value.details


def test_n1_a_key_is_changed_when_all_know_the_next_one(
    coordinator: TlsCoordinator, machine: PinningMachine, tmp_path: Path
) -> None:
    storage_token = join_token.decode(token_for(coordinator, "storage"), kind=JoinKind.STORAGE)
    keys = list(storage_token.key_fingerprints)
    assert keys == [coordinator.files.fingerprint]
    with StorageHost(
        tmp_path / "storage", api_url=coordinator.url, api_auth=storage_token.secret.reveal(), api_key_fingerprints=keys
    ) as storage:
        storage.update_config()
        old = coordinator.fingerprint()
        new = coordinator.manage("tls", "next-key").split()[2]
        assert "0 of 1 machine and 0 of 1 storage" in coordinator.manage("tls", "show")
        assert "0 of 1 machine and 0 of 1 storage" in refused(coordinator, "tls", "switch")
        assert coordinator.fingerprint() == old
        assert machine.update_config().returncode == 0
        assert machine.accepted() == {old, new}
        assert "1 of 1 machine and 0 of 1 storage" in refused(coordinator, "tls", "switch")
        storage.update_config()
        assert (machine.var_dir / pinned_keys.FILE).stat().st_mode & 0o777 == 0o600
        coordinator.manage("tls", "switch")
        assert coordinator.fingerprint() == new
        # The old key is forgotten.
        assert machine.update_config().returncode == 0
        assert machine.accepted() == {new}
        storage.update_config()
        assert pinned_keys.accepted(keys, storage.var_dir) == (new,)
    assert "there is no next key" in refused(coordinator, "tls", "switch")


def test_n1_who_is_left_behind_refuses_and_says_why(coordinator: TlsCoordinator, machine: PinningMachine) -> None:
    old = coordinator.fingerprint()
    coordinator.manage("tls", "next-key")
    coordinator.manage("tls", "switch", "--force")
    update = machine.update_config()
    assert update.returncode == 69
    assert f"the key of its certificate is {coordinator.fingerprint()}, and only {old} is accepted" in update.stderr
    assert "turku-api tls show" in update.stderr
    machine.keys["api_key_fingerprints"] = [coordinator.fingerprint()]
    machine.configure()
    assert machine.update_config().returncode == 0


def intercept(machine: PinningMachine, server: HttpsServer) -> subprocess.CompletedProcess[str]:
    machine.configure(api_url=server.url)
    return machine.update_config()


def test_n1_a_certificate_of_a_trusted_authority_does_not_stand_for_the_key(
    machine: PinningMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = self_signed(tmp_path, "authority")
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    middle = signed(tmp_path, "localhost", authority)
    announcement = json.dumps({**ANSWER, "announced_keys": [middle.fingerprint]}).encode()
    before = machine.accepted()
    with https_server(middle, answer=announcement) as server:
        assert intercept(machine, server).returncode == 69
        assert server.received == []
        # Without a pinned key it would have been taken.
        machine.configure(api_url=server.url, api_key_fingerprints=[])
        assert machine.update_config().returncode == 0
        assert server.received
    assert machine.accepted() == before


def test_n1_a_coordinator_cannot_announce_itself_away(
    coordinator: TlsCoordinator, machine: PinningMachine, tmp_path: Path
) -> None:
    forged = "SHA256:" + "F" * 43
    before = machine.accepted()
    for keys in ([forged], ["nonsense"], [forged] * 5, "all"):
        with https_server(coordinator.files, answer=json.dumps({**ANSWER, "announced_keys": keys}).encode()) as server:
            intercept(machine, server)
        assert machine.accepted() == before


def test_n1_a_machine_that_pins_no_key_ignores_announcements(
    coordinator: TlsCoordinator, machine: PinningMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", str(coordinator.files.certificate))
    answer = json.dumps({**ANSWER, "announced_keys": [coordinator.files.fingerprint, "SHA256:" + "F" * 43]}).encode()
    with https_server(coordinator.files, answer=answer) as server:
        machine.configure(api_url=server.url, api_key_fingerprints=[])
        assert machine.update_config().returncode == 0
        assert b"accepted_keys" not in server.received[0]
    assert not (machine.var_dir / pinned_keys.FILE).exists()


def test_n1_a_compromised_coordinator_can_add_a_key_and_the_machines_file_shows_it(
    coordinator: TlsCoordinator, machine: PinningMachine
) -> None:
    # It is the coordinator, so that it can be followed to wherever it moves. The threat model says so.
    forged = "SHA256:" + "F" * 43
    answer = json.dumps({**ANSWER, "announced_keys": [coordinator.files.fingerprint, forged]}).encode()
    with https_server(coordinator.files, answer=answer) as server:
        intercept(machine, server)
    assert machine.accepted() == {coordinator.files.fingerprint, forged}
    # The true coordinator's next answer ends it.
    machine.configure()
    assert machine.update_config().returncode == 0
    assert machine.accepted() == {coordinator.files.fingerprint}
