"""C1: a coordinator cannot send a machine to a storage of the attacker's. Changes are accepted on the machine."""

import getpass
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.agent.conftest import Machine
from tests.support.sshd import Sshd
from tests.support.v1_client import new_ssh_key
from tests.support.v1_server import V1Api, storage_line


class Attacker:
    """A storage that lets this machine in and takes all it gets."""

    def __init__(self, machine: Machine, sshd: Sshd) -> None:
        self.machine = machine
        self.sshd = sshd
        self.loot = machine.directory / "loot"
        line = storage_line(machine.api, "new", self.loot, machine.uuid)
        sshd.authorized_keys.write_text(line)

    @property
    def address(self) -> dict[str, Any]:
        return {
            "ssh_ping_host": "127.0.0.1",
            "ssh_ping_host_keys": self.sshd.host_keys,
            "ssh_ping_port": self.sshd.port,
            "ssh_ping_user": getpass.getuser(),
        }

    @property
    def got_nothing(self) -> bool:
        return not self.loot.exists() and not any("Accepted" in line for line in self.sshd.last_lines)


@pytest.fixture
def attacker(machine: Machine, tmp_path: Path) -> Iterator[Attacker]:
    """Ready beside a machine that has made a backup to its own storage."""
    tree = tmp_path / "src"
    tree.mkdir()
    (tree / "file").write_text("mine")
    machine.source("etc", tree)
    machine.register()
    ping = machine.ping()
    assert ping.returncode == 0, ping.stderr
    authorized_keys = tmp_path / "attackers_authorized_keys"
    authorized_keys.touch()
    with Sshd(tmp_path / "attackers_sshd", authorized_keys=authorized_keys) as sshd:
        yield Attacker(machine, sshd)


def refused(machine: Machine, *arguments: str, exit_code: int = 2) -> str:
    """Return the agent's output when it would not go there."""
    ping = machine.ping(*arguments)
    assert ping.returncode == exit_code, ping.stderr
    assert "it gets nothing" in ping.stderr
    return ping.stderr


def fingerprint(sshd: Sshd) -> str:
    shown = subprocess.run(["ssh-keygen", "-lf", sshd.host_key], capture_output=True, text=True, check=True)
    return shown.stdout.split()[1]


def test_c1_another_storage_gets_nothing(machine: Machine, api: V1Api, attacker: Attacker) -> None:
    api.storages["new"] = attacker.address
    api.placed["etc"] = "new"
    said = refused(machine)
    assert "storage new (127.0.0.1 port" in said
    assert f"turku-agent accept-storage 'new' --fingerprint {fingerprint(attacker.sshd)}" in said
    assert attacker.got_nothing
    # However often it is told so.
    refused(machine)
    assert attacker.got_nothing


def test_c1_a_known_name_with_other_keys_gets_nothing(machine: Machine, api: V1Api, attacker: Attacker) -> None:
    api.storages["primary"] = attacker.address
    assert "has other host keys than this machine knows" in refused(machine)
    assert attacker.got_nothing


def test_c1_no_restore_comes_from_there_either(machine: Machine, api: V1Api, attacker: Attacker) -> None:
    api.storages["primary"] = attacker.address
    restore = machine.ping("--restore")
    assert restore.returncode == 67
    assert "error [storage-not-trusted]" in restore.stderr
    assert "RSYNC_PASSWORD" not in restore.stdout
    assert attacker.got_nothing


def test_c1_a_further_key_beside_the_known_one_opens_no_door(machine: Machine, api: V1Api, attacker: Attacker) -> None:
    api.storages["primary"] = {
        **attacker.address,
        "ssh_ping_host_keys": [*machine.sshd.host_keys, *attacker.sshd.host_keys],
    }
    ping = machine.ping()
    assert ping.returncode == 2
    assert "which this machine does not trust; it gets nothing" in ping.stderr
    assert attacker.got_nothing


def test_c1_a_storage_that_announces_its_next_key_goes_on_with_the_known_one(
    machine: Machine, api: V1Api, attacker: Attacker
) -> None:
    following = " ".join(new_ssh_key().split()[:2])
    api.storages["primary"]["ssh_ping_host_keys"] = [following, *machine.sshd.host_keys]
    first, second = machine.ping(), machine.ping()
    assert first.returncode == second.returncode == 0
    assert "announces further host keys of it, which do not count until they are accepted" in first.stderr
    assert "further host keys" not in second.stderr, "said once, not every five minutes"
    accepted = machine.run("turku-agent", "accept-storage")
    assert accepted.returncode == 0, accepted.stderr
    known = json.loads((machine.var_dir / "known_storages.json").read_text())
    assert known["primary"]["host_keys"] == [following, *machine.sshd.host_keys]


def test_c1_a_storage_is_known_by_its_key_under_any_name_and_address(
    machine: Machine, api: V1Api, attacker: Attacker
) -> None:
    api.storages["renamed"] = {**api.storages["primary"], "ssh_ping_host": "localhost"}
    api.placed["etc"] = "renamed"
    assert machine.ping().returncode == 0


def test_c1_a_key_that_an_administrator_accepts_is_trusted_from_then_on(
    machine: Machine, api: V1Api, attacker: Attacker
) -> None:
    api.storages["new"] = attacker.address
    api.placed["etc"] = "new"
    refused(machine)
    listing = machine.run("turku-agent", "storages").stdout
    assert fingerprint(attacker.sshd) in listing.partition("Waiting to be accepted:")[2]
    assert fingerprint(machine.sshd) in listing.partition("Waiting to be accepted:")[0]
    accepted = machine.run("turku-agent", "accept-storage", "new", "--fingerprint", fingerprint(attacker.sshd))
    assert accepted.returncode == 0, accepted.stderr
    assert fingerprint(attacker.sshd) in accepted.stdout
    assert machine.ping().returncode == 0
    assert (attacker.loot / machine.uuid / "etc/file").read_text() == "mine"
    # The one it had is known as well: it was another storage's.
    api.placed["etc"] = "primary"
    assert machine.ping().returncode == 0


def test_c1_a_renewed_key_takes_the_place_of_the_old_one(machine: Machine, api: V1Api, attacker: Attacker) -> None:
    old = dict(api.storages["primary"])
    api.storages["primary"] = attacker.address
    refused(machine)
    accepted = machine.run("turku-agent", "accept-storage")
    assert f"no longer trusted: {fingerprint(machine.sshd)}" in accepted.stdout
    assert machine.ping().returncode == 0
    api.storages["primary"] = old
    refused(machine)


def test_c1_a_key_swapped_behind_the_administrators_back_is_not_accepted(
    machine: Machine, api: V1Api, attacker: Attacker
) -> None:
    seen = new_ssh_key()
    api.storages["new"] = {**attacker.address, "ssh_ping_host_keys": [seen]}
    api.placed["etc"] = "new"
    said = refused(machine)
    command = said[said.index("turku-agent accept-storage") :].splitlines()[0].split()
    api.storages["new"] = attacker.address
    refused(machine)
    accepted = machine.run("turku-agent", "accept-storage", "new", "--fingerprint", command[-1])
    assert accepted.returncode == 78
    assert "no key of new that waits has the fingerprint" in accepted.stderr
    refused(machine)
    assert attacker.got_nothing


def test_c1_keys_of_the_configuration_win_and_nothing_is_learned_beside_them(
    machine: Machine, api: V1Api, attacker: Attacker
) -> None:
    (machine.var_dir / "known_storages.json").unlink()
    machine.configure(storage_host_keys={"primary": machine.sshd.host_keys})
    assert machine.ping().returncode == 0
    for name in ("primary", "new"):
        api.storages[name] = attacker.address
        api.placed["etc"] = name
        refused(machine)
    assert attacker.got_nothing
    assert not (machine.var_dir / "known_storages.json").exists()
    api.placed["etc"] = "primary"
    assert "storage_host_keys in the configuration" in refused(machine)
    assert machine.run("turku-agent", "accept-storage", "primary").returncode == 78


def test_c1_a_key_that_the_configuration_replaced_is_trusted_under_no_name(
    machine: Machine, api: V1Api, attacker: Attacker
) -> None:
    # The learned key was lost to an attacker, who now owns it. The administrator wrote down the new one.
    lost = dict(api.storages["primary"])
    machine.configure(storage_host_keys={"primary": attacker.sshd.host_keys})
    api.storages["other"] = lost
    api.placed["etc"] = "other"
    refused(machine)


def test_c1_a_damaged_record_is_no_first_contact(machine: Machine, api: V1Api, attacker: Attacker) -> None:
    (machine.var_dir / "known_storages.json").write_text('{"primary": {"host')
    api.storages["primary"] = attacker.address
    ping = machine.ping()
    assert ping.returncode == 78
    assert "known_storages.json cannot be read" in ping.stderr
    assert attacker.got_nothing


def test_c1_made_up_storages_fill_no_disk(machine: Machine, api: V1Api, attacker: Attacker) -> None:
    sources = {f"s{number}": {"path": "/nowhere"} for number in range(60)}
    (machine.config_dir / "sources.d/many.json").write_text(json.dumps(sources))
    for number in range(60):
        api.storages[f"made-up-{number}"] = {**attacker.address, "ssh_ping_host_keys": [new_ssh_key()] * 40}
        api.placed[f"s{number}"] = f"made-up-{number}"
    assert machine.run("turku-update-config").returncode == 0
    refused(machine)
    assert len(json.loads((machine.var_dir / "pending_storages.json").read_text())) == 20
    assert attacker.got_nothing


@pytest.mark.parametrize(("choice", "is_trusted"), [("always", True), ("never", False)])
def test_c1_an_administrator_may_choose_to_trust_more_or_less(
    machine: Machine, api: V1Api, attacker: Attacker, choice: str, is_trusted: bool
) -> None:
    machine.configure(trust_new_storages=choice)
    api.storages["new"] = attacker.address
    api.placed["etc"] = "new"
    assert (machine.ping().returncode == 0) is is_trusted
    assert attacker.got_nothing is not is_trusted
    # A known name is held to its keys in any case.
    api.storages["new"] = {**attacker.address, "ssh_ping_host_keys": [new_ssh_key()]}
    refused(machine)


def test_c1_the_first_contact_is_trusted_unless_never(machine: Machine, api: V1Api, tmp_path: Path) -> None:
    machine.source("etc", tmp_path)
    machine.configure(trust_new_storages="never")
    machine.register()
    refused(machine)
    assert machine.run("turku-agent", "accept-storage").returncode == 0
    machine.source("etc", "/etc/ssh")
    assert machine.ping().returncode == 0
