"""The lines of authorized_keys: one a machine, nothing of the coordinator's in them that is not a key (threats M1, C5)."""

import logging
from pathlib import Path
from typing import Any

import pytest
from tests.support.backed_up_machine import storage_configuration
from tests.support.v1_client import A_KEY, new_ssh_key

from turku.core.configuration.declaration import with_values
from turku.errors import ConfigurationError
from turku.protocol.messages import AssignedMachine
from turku.storage.config.defaults import DEFAULT_DIRECTORY
from turku.storage.config.model import StorageConfig
from turku.storage.registration import authorized_keys
from turku.storage.registration.authorized_keys import Admitted, admit

UUID = "9bef0a75-5a9b-43f7-a66a-7e8c6d7ad91d"
OTHER = "1bef0a75-5a9b-43f7-a66a-7e8c6d7ad91d"


def configuration(directory: Path, **keys: Any) -> StorageConfig:
    return storage_configuration(directory / "etc", ssh_ping_host="storage.example.com", **keys)


def bare(key: str) -> str:
    return " ".join(key.split()[:2])


def test_a_line_restricts_the_key_to_the_forced_command_and_loopback(tmp_path: Path) -> None:
    key = bare(new_ssh_key())
    line = authorized_keys.line(configuration(tmp_path), Admitted(UUID, key))
    options, rest = line.split(" ", 1)[0], line
    assert options.startswith('restrict,port-forwarding,permitlisten="localhost:*",permitopen="255.255.255.255:1",')
    assert f'command="turku-storage-ping {UUID} --config-dir ' in rest
    assert rest.endswith(f'" {key} turku:{UUID}')


def test_the_default_directory_is_not_named(tmp_path: Path) -> None:

    default = with_values(configuration(tmp_path), config_dir=DEFAULT_DIRECTORY)
    assert authorized_keys.forced_command(default, UUID) == f"turku-storage-ping {UUID}"


def test_a_directory_in_the_command_is_not_given_twice(tmp_path: Path) -> None:
    own = configuration(tmp_path, authorized_keys_command="turku-storage-ping -c /srv/etc")
    assert authorized_keys.forced_command(own, UUID) == f"turku-storage-ping -c /srv/etc {UUID}"


@pytest.mark.parametrize(
    "key",
    [
        None,
        "",
        "ssh-ed25519",
        A_KEY + "\n" + A_KEY,
        A_KEY + "\r" + A_KEY,
        'command="/bin/sh" ' + A_KEY,
        "restrict " + A_KEY,
        "ssh-dss AAAAB3NzaC1kc3MAAACBAA==",
        "cert-authority " + A_KEY,
        A_KEY.replace("ssh-ed25519", "ssh-rsa"),
        "#" + A_KEY,
        A_KEY.replace(" turku", "\0"),
    ],
)
def test_a_text_that_is_not_one_key_gets_no_line(key: str | None) -> None:
    assert admit({UUID: AssignedMachine(ssh_public_key=key)}) == []


def test_a_comment_of_the_coordinators_stays_out() -> None:
    key = new_ssh_key()
    assert admit({UUID: AssignedMachine(ssh_public_key=key + " extra words")}) == [Admitted(UUID, bare(key))]


@pytest.mark.parametrize("uuid", ["", "../x", UUID + "\n", f'{UUID}" ssh-ed25519', "$(id)"])
def test_a_text_that_is_not_a_uuid_gets_no_line(uuid: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert admit({uuid: AssignedMachine(ssh_public_key=new_ssh_key())}) == []
    assert "gets no line in authorized_keys" in caplog.text


def test_a_key_of_two_machines_stays_with_the_one_that_has_it(tmp_path: Path) -> None:
    key = new_ssh_key()
    storage = configuration(tmp_path)
    authorized_keys.write(storage, {UUID: AssignedMachine(ssh_public_key=key)})
    machines = dict.fromkeys((OTHER, UUID), AssignedMachine(ssh_public_key=key))
    written = authorized_keys.write(storage, machines)
    assert written.admitted == (Admitted(UUID, bare(key)),)


def test_a_new_key_of_two_machines_goes_to_the_first() -> None:
    key = new_ssh_key()
    machines = dict.fromkeys((OTHER, UUID), AssignedMachine(ssh_public_key=key))
    assert admit(machines) == [Admitted(OTHER, bare(key))]


def test_a_key_of_the_operator_is_not_given_to_a_machine() -> None:
    key = new_ssh_key()
    machines = {UUID: AssignedMachine(ssh_public_key=key)}
    assert admit(machines, static=f"ssh-ed25519 {key.split()[1]} operator\n".encode()) == []


def test_static_lines_come_first_even_without_an_end_of_line(tmp_path: Path) -> None:
    storage = configuration(tmp_path)
    path = storage.ssh.authorized_keys_file
    path.with_name("authorized_keys.static").write_bytes(b"# \xff\nssh-ed25519 AAAA operator")
    authorized_keys.write(storage, {UUID: AssignedMachine(ssh_public_key=new_ssh_key())})
    lines = path.read_bytes().split(b"\n")
    assert lines[:2] == [b"# \xff", b"ssh-ed25519 AAAA operator"]
    assert lines[2].startswith(b"# Turku keeps this file")
    assert lines[3].startswith(b"restrict,")


def test_a_run_that_changes_nothing_writes_nothing(tmp_path: Path) -> None:
    storage = configuration(tmp_path)
    machines = {UUID: AssignedMachine(ssh_public_key=new_ssh_key())}
    assert authorized_keys.write(storage, machines).changed
    inode = storage.ssh.authorized_keys_file.stat().st_ino
    assert not authorized_keys.write(storage, machines).changed
    assert storage.ssh.authorized_keys_file.stat().st_ino == inode


def test_a_mode_that_sshd_would_refuse_is_repaired(tmp_path: Path) -> None:
    storage = configuration(tmp_path)
    authorized_keys.write(storage, {})
    storage.ssh.authorized_keys_file.chmod(0o666)
    assert authorized_keys.write(storage, {}).changed
    assert storage.ssh.authorized_keys_file.stat().st_mode & 0o777 == 0o600


def test_a_file_of_the_existing_system_is_taken_over(tmp_path: Path) -> None:
    storage = configuration(tmp_path)
    storage.ssh.authorized_keys_file.write_text(
        f'command="turku-storage-ping {UUID}",no-pty ssh-rsa AAAA x\n# comment\n\n'
    )
    authorized_keys.write(storage, {})
    assert "ssh-rsa" not in storage.ssh.authorized_keys_file.read_text()


def test_a_line_without_the_forced_command_is_not_lost_and_not_kept_unasked(tmp_path: Path) -> None:
    storage = configuration(tmp_path)
    path = storage.ssh.authorized_keys_file
    path.write_text("ssh-rsa AAAA planted or the operator's\n")
    with pytest.raises(ConfigurationError, match="1 line that Turku did not write"):
        authorized_keys.write(storage, {})
    assert "planted" in path.read_text()
    path.with_name("authorized_keys.static").touch()
    authorized_keys.write(storage, {})
    assert "planted" not in path.read_text()


def test_a_static_file_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    storage = configuration(tmp_path)
    (tmp_path / "elsewhere").write_text("secret\n")
    storage.ssh.authorized_keys_file.with_name("authorized_keys.static").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        authorized_keys.write(storage, {})
    assert not storage.ssh.authorized_keys_file.exists()


def test_control_characters_never_reach_a_line(tmp_path: Path) -> None:

    storage = with_values(configuration(tmp_path), config_dir=Path("/etc/a\nssh-ed25519 AAAA"))
    with pytest.raises(ConfigurationError):
        authorized_keys.line(storage, Admitted(UUID, bare(new_ssh_key())))
