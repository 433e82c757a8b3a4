"""The protection of a storage: facts with a verdict, and the next step."""

import os
from pathlib import Path

import pytest
from tests.support.backed_up_machine import storage_configuration

from turku.core.configuration.declaration import with_values
from turku.storage.commands.protection import host, sshd
from turku.storage.commands.protection.fact import Fact, Verdict
from turku.storage.config.model import StorageConfig
from turku.storage.fs import mounts

GOOD_SSHD = """\
port 22
gatewayports no
allowtcpforwarding remote
allowstreamlocalforwarding no
allowagentforwarding no
x11forwarding no
permittunnel no
permituserenvironment no
disableforwarding no
"""

MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 8:2 / /srv rw,nosuid,nodev,relatime - xfs /dev/sdb rw
31 30 8:3 / {point} rw,nosuid,noexec - ext4 /dev/sdc rw
"""


@pytest.fixture
def storage(tmp_path: Path) -> StorageConfig:
    (tmp_path / "storage" / "volume").mkdir(parents=True)
    return storage_configuration(tmp_path / "storage")


def private_facts(storage: StorageConfig) -> dict[str, Verdict]:
    return {fact.subject: fact.verdict for fact in host._private_files(storage)}


def test_sshd_that_forwards_only_what_backups_need_is_good() -> None:
    assert sshd.sshd_fact(GOOD_SSHD, user="turku").verdict is Verdict.OK


@pytest.mark.parametrize(
    ("line", "changed"),
    [
        ("gatewayports no", "gatewayports clientspecified"),
        ("allowtcpforwarding remote", "allowtcpforwarding yes"),
        ("allowstreamlocalforwarding no", "allowstreamlocalforwarding local"),
        ("allowagentforwarding no", "allowagentforwarding yes"),
        ("x11forwarding no", "x11forwarding yes"),
        ("permituserenvironment no", "permituserenvironment yes"),
    ],
)
def test_sshd_that_allows_more_is_a_warning_that_names_it(line: str, changed: str) -> None:
    fact = sshd.sshd_fact(GOOD_SSHD.replace(line, changed), user="turku")
    assert fact.verdict is Verdict.WARN
    assert changed in fact.text


@pytest.mark.parametrize(
    ("line", "changed"),
    [
        ("gatewayports no", "gatewayports yes"),
        ("allowstreamlocalforwarding no", "allowstreamlocalforwarding yes"),
        ("allowstreamlocalforwarding no", "allowstreamlocalforwarding remote"),
        ("permittunnel no", "permittunnel point-to-point"),
        ("port 22", "acceptenv LANG\nacceptenv LD_*"),
        ("port 22", "acceptenv *\nacceptenv LC_*"),
    ],
)
def test_an_option_that_no_line_of_a_key_can_forbid_is_a_failure_that_names_it(line: str, changed: str) -> None:
    fact = sshd.sshd_fact(GOOD_SSHD.replace(line, changed), user="turku")
    assert fact.verdict is Verdict.FAIL
    assert any(setting in fact.text for setting in changed.splitlines())


def test_variables_of_the_language_do_no_harm() -> None:
    accepted = "acceptenv LANG\nacceptenv LC_*\nacceptenv TURKU_NO_VARIABLE\n"
    assert sshd.sshd_fact(GOOD_SSHD + accepted, user="turku").verdict is Verdict.OK


@pytest.mark.parametrize(
    ("program", "asks_as", "verdict"),
    [
        ("none", "none", Verdict.OK),
        ("/usr/local/bin/turku-storage authorized-keys %u %t %k", "root", Verdict.OK),
        ("/usr/local/bin/turku-storage authorized-keys %u %t %k", "nobody", Verdict.FAIL),
        ("/usr/local/bin/another %u", "nobody", Verdict.OK),
    ],
)
def test_sshd_must_ask_about_new_machines_as_who_can_answer(program: str, asks_as: str, verdict: Verdict) -> None:
    output = f"{GOOD_SSHD}authorizedkeyscommand {program}\nauthorizedkeyscommanduser {asks_as}\n"
    assert sshd.new_machines_fact(output, runs_as="root").verdict is verdict


@pytest.mark.parametrize("line", ["disableforwarding yes", "allowtcpforwarding no", "allowtcpforwarding local"])
def test_sshd_that_lets_no_machine_in_is_a_failure(line: str) -> None:
    name = line.split(maxsplit=1)[0]
    lines = [line if text.startswith(f"{name} ") else text for text in GOOD_SSHD.splitlines()]
    assert sshd.sshd_fact("\n".join(lines), user="turku").verdict is Verdict.FAIL


def test_the_options_are_those_of_the_mount_that_holds_the_path(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    point = tmp_path / "a disk"
    point.mkdir()
    table.write_text(MOUNTS.format(point=str(point).replace(" ", "\\040")))
    assert "noexec" in mounts.mount_of(point, mounts=table).options
    assert "nosuid" not in mounts.mount_of(tmp_path, mounts=table).options


def test_a_volume_mounted_without_nosuid_and_nodev_is_a_warning(storage: StorageConfig) -> None:
    facts = list(host._volume(storage, storage.disk.volumes[0]))
    missing = {"nosuid", "nodev"} - mounts.mount_of(storage.disk.volumes[0].path).options
    assert (facts[0].verdict is Verdict.WARN) == bool(missing)
    assert all(option in facts[0].text for option in missing)


def test_a_volume_below_the_low_water_mark_is_a_failure(storage: StorageConfig) -> None:
    low = with_values(storage, low_water_free_pct=100.0)
    assert Verdict.FAIL in {fact.verdict for fact in host._volume(low, low.disk.volumes[0])}


def test_a_file_with_a_secret_that_others_may_read_is_a_failure(storage: StorageConfig) -> None:
    path = storage.config_dir / "config.d" / "config.json"
    path.chmod(0o640)
    assert private_facts(storage)[str(path)] is Verdict.FAIL
    path.chmod(0o600)
    assert private_facts(storage)[str(path)] is Verdict.OK


def test_files_without_a_secret_may_be_read_by_all(storage: StorageConfig) -> None:
    path = storage.config_dir / "config.d" / "volumes.json"
    path.write_text("{}")
    path.chmod(0o644)
    assert str(path) not in private_facts(storage)


def test_a_state_directory_that_others_may_write_is_a_failure(storage: StorageConfig) -> None:
    storage.state.var_dir.mkdir(exist_ok=True)
    storage.state.var_dir.chmod(0o777)
    assert private_facts(storage)[str(storage.state.var_dir)] is Verdict.FAIL
    storage.state.var_dir.chmod(0o755)
    assert private_facts(storage)[str(storage.state.var_dir)] is Verdict.OK


def test_a_sandbox_that_is_off_is_a_warning(storage: StorageConfig) -> None:
    fact: Fact = host._sandbox(with_values(storage, sandbox="off").limits)
    assert fact.verdict is Verdict.WARN


def test_without_root_and_fake_super_owners_are_lost_and_that_is_said(storage: StorageConfig) -> None:
    verdict = host._user(with_values(storage, fake_super=False).receiving).verdict
    assert (verdict is Verdict.WARN) == (os.geteuid() != 0)


def test_sshd_that_lets_nobody_listen_stops_every_backup() -> None:
    fact = sshd.sshd_fact(GOOD_SSHD + "permitlisten none\n", user="turku")
    assert fact.verdict is Verdict.FAIL
    assert sshd.sshd_fact(GOOD_SSHD + "permitlisten localhost:*\n", user="turku").verdict is Verdict.OK


def test_a_secret_that_only_its_directory_protects_is_a_failure(storage: StorageConfig) -> None:
    directory = storage.config_dir / "config.d"
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "secret.json"
    path.write_text('{"secret": "x"}')
    path.chmod(0o644)
    directory.chmod(0o700)
    assert private_facts(storage)[str(path)] is Verdict.FAIL
    path.chmod(0o600)
    assert private_facts(storage)[str(path)] is Verdict.OK


@pytest.mark.parametrize("address", ["localhost", "127.0.0.1", "storage.localdomain"])
def test_an_address_that_leads_machines_to_themselves_is_reported(storage: StorageConfig, address: str) -> None:
    (fact,) = host._address(with_values(storage, ssh_ping_host=address).ssh)
    assert fact.verdict is Verdict.WARN
    assert list(host._address(with_values(storage, ssh_ping_host="storage.example.com").ssh)) == []
