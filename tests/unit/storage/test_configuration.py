"""The storage's configuration: every key of the contract, all faults at once, an identity that is made once."""

import json
import os
import pwd
import stat
from pathlib import Path
from typing import Any

import pytest

from turku.errors import ConfigurationError
from turku.protocol.messages import Registration
from turku.storage.config import loading as configuration
from turku.storage.config.model import StorageConfig


def write(directory: Path, file_name: str = "config.json", /, **keys: Any) -> Path:
    path = directory / "config.d" / file_name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(keys))
    return directory


def least(directory: Path, **keys: Any) -> dict[str, Any]:
    """The keys without which nothing works, and those that keep a test in its directory."""
    content = {
        "api_url": "https://turku.example.com/v1",
        "volumes": {"data": {"path": "/srv/turku"}},
        "ssh_ping_host": "storage.example.com",
        "var_dir": str(directory / "var"),
        "log_file": "syslog",
        "name": "primary",
        "secret": "a" * 30,
        **keys,
    }
    return {key: value for key, value in content.items() if value is not None}


def load(directory: Path, **keys: Any) -> StorageConfig:
    return configuration.load(write(directory / "etc", **least(directory, **keys)))


def faults(directory: Path, **keys: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(directory, **keys)
    return caught.value.message


def test_defaults_are_those_of_the_contract(tmp_path: Path) -> None:
    storage = load(tmp_path)
    assert storage.receiving.snapshot_mode == "link-dest"
    assert storage.receiving.preserve_hard_links
    assert storage.ssh.ssh_ping_port == 22
    assert storage.ssh.ssh_ping_host_keys_glob == "/etc/ssh/ssh_host_*_key.pub"
    assert storage.ssh.authorized_keys_command == "turku-storage-ping"
    assert storage.ssh.authorized_keys_file == Path(pwd.getpwuid(os.geteuid()).pw_dir) / ".ssh" / "authorized_keys"
    assert storage.state.lock_dir == tmp_path / "var" / "lock"
    assert storage.state.machines_dir == tmp_path / "var" / "machines"
    assert storage.state.timezone.key == "UTC"
    assert storage.identity.published is None
    [volume] = storage.disk.volumes
    assert (volume.accept_new, volume.accept_new_high_water_pct) == (True, 80)


def test_a_volume_may_have_a_high_water_mark_of_its_own(tmp_path: Path) -> None:
    volumes = {"a": {"path": "/a"}, "b": {"path": "/b", "accept_new_high_water_pct": 95.5, "accept_new": False}}
    storage = load(tmp_path, volumes=volumes, accept_new_high_water_pct=60)
    assert [volume.accept_new_high_water_pct for volume in storage.disk.volumes] == [60, 95.5]
    assert [volume.accept_new for volume in storage.disk.volumes] == [True, False]


def test_later_files_win_key_by_key(tmp_path: Path) -> None:
    write(tmp_path / "etc", "20-more.json", volumes={"data": {"accept_new": False}}, name="second")
    storage = load(tmp_path)
    assert storage.identity.name == "primary"
    write(tmp_path / "etc", "z.json", name="second", volumes={"data": {"accept_new": False}})
    storage = load(tmp_path)
    assert storage.identity.name == "second"
    assert storage.disk.volumes[0].path == Path("/srv/turku")
    assert not storage.disk.volumes[0].accept_new


def test_all_faults_are_reported_together_each_with_file_and_key(tmp_path: Path) -> None:
    message = faults(
        tmp_path,
        api_url="ftp://x",
        ssh_ping_port=70000,
        snapshot_mode="magic",
        volumes={"data": {"path": "relative"}},
        timezone="Mars/Olympus",
        log_file="somewhere",
        authorized_keys_command="echo 'open",
        api_auth_name="alone",
    )
    assert "8 faults" in message
    path = str(tmp_path / "etc" / "config.d" / "config.json")
    for key in (
        *("api_url", "ssh_ping_port", "snapshot_mode", "volumes.data.path", "timezone", "log_file"),
        *("authorized_keys_command", "api_auth_name"),
    ):
        assert f"{path}: {key}" in message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("api_url", None),
        ("api_url", "http://turku.example.com/v1"),
        ("volumes", None),
        ("volumes", {}),
        ("volumes", {"data": {}}),
        ("volumes", {"data": {"path": "/srv", "accept_new_high_water_pct": 120}}),
        ("var_dir", "relative"),
        ("authorized_keys_file", "relative"),
        ("authorized_keys_command", "a\nssh-ed25519 AAAA"),
        ("authorized_keys_command", " "),
        ("authorized_keys_user", "no-such-user-here"),
        ("ssh_ping_user", "no-such-user-here"),
        ("preserve_hard_links", "yes"),
        ("ssh_ping_host_keys", "ssh-ed25519 AAAA"),
    ],
)
def test_a_fault_names_its_key(tmp_path: Path, key: str, value: Any) -> None:
    assert key in faults(tmp_path, **{key: value})


def test_a_user_without_a_name_is_asked_for_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 3_000_000_001)
    assert "ssh_ping_user: is required: user 3000000001" in faults(tmp_path)
    assert load(tmp_path, ssh_ping_user="turku", authorized_keys_file="/k").ssh.ssh_ping_user == "turku"


def test_a_malformed_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "etc" / "config.d").mkdir(parents=True)
    (tmp_path / "etc" / "config.d" / "broken.json").write_text("{")
    assert "broken.json: malformed JSON" in faults(tmp_path)


def test_an_unknown_key_is_a_warning_that_names_its_likely_meaning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    load(tmp_path, ssh_ping_prot=23, volumes={"data": {"path": "/srv", "accept_neu": True}})
    assert "config.json: volumes.data.accept_neu: unknown key, ignored; did you mean 'accept_new'?" in caplog.text
    assert "ssh_ping_prot: unknown key, ignored; did you mean 'ssh_ping_port'?" in caplog.text


def test_name_and_secret_are_made_once_and_kept_private(tmp_path: Path) -> None:
    first = load(tmp_path, name=None, secret=None)
    second = load(tmp_path, name=None, secret=None)
    assert first.identity.name == second.identity.name
    assert first.identity.secret == second.identity.secret
    assert len(first.identity.secret.reveal()) == 30
    path = tmp_path / "var" / "config.d" / "10-storage.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_etc_wins_over_what_was_made(tmp_path: Path) -> None:
    made = load(tmp_path, name=None, secret=None)
    named = load(tmp_path, name="primary", secret=None)
    assert named.identity.name == "primary"
    assert named.identity.secret == made.identity.secret


def test_a_nameless_registration_string_is_taken(tmp_path: Path) -> None:
    assert load(tmp_path, api_auth="STRING").api.registration == "STRING"


def test_name_and_secret_of_a_registration_win_over_the_nameless_one(tmp_path: Path) -> None:
    storage = load(tmp_path, api_auth="STRING", api_auth_name="n", api_auth_secret="s")
    assert storage.api.registration == Registration(name="n", secret="s")


def test_the_command_lines_registration_wins_over_the_files(tmp_path: Path) -> None:
    directory = write(tmp_path / "etc", **least(tmp_path, api_auth="STRING"))
    storage = configuration.load(directory, api_auth_name="n", api_auth_secret="s")
    assert storage.api.registration == Registration(name="n", secret="s")


def test_host_keys_are_read_from_their_files(tmp_path: Path) -> None:
    (tmp_path / "ssh_host_a_key.pub").write_text("ssh-ed25519 AAAA root@storage\n")
    (tmp_path / "ssh_host_b_key.pub").write_text("ssh-rsa BBBB\nsecond line\n")
    storage = load(tmp_path, ssh_ping_host_keys_glob=str(tmp_path / "ssh_host_*_key.pub"))
    assert storage.ssh.host_keys() == ["ssh-ed25519 AAAA", "ssh-rsa BBBB"]


def test_configured_host_keys_win_over_the_files(tmp_path: Path) -> None:
    assert load(tmp_path, ssh_ping_host_keys=["ssh-ed25519 CCCC comment"]).ssh.host_keys() == ["ssh-ed25519 CCCC"]


def test_no_host_key_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no SSH host key"):
        load(tmp_path, ssh_ping_host_keys_glob=str(tmp_path / "none*")).ssh.host_keys()


def test_yaml_is_read_as_well(tmp_path: Path) -> None:
    directory = tmp_path / "etc" / "config.d"
    directory.mkdir(parents=True)
    (directory / "config.yaml").write_text("comment: in the cellar\nssh_ping_port: 2222\n")
    storage = load(tmp_path)
    assert (storage.identity.comment, storage.ssh.ssh_ping_port) == ("in the cellar", 2222)


def test_secrets_do_not_print_themselves(tmp_path: Path) -> None:
    assert "a" * 30 not in repr(load(tmp_path))


def test_no_identity_is_made_for_a_configuration_that_is_refused(tmp_path: Path) -> None:
    faults(tmp_path, name=None, secret=None, volumes=None)
    assert not (tmp_path / "var").exists()


def test_a_generated_identity_leaves_no_file_to_warn_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    load(tmp_path, name=None, secret=None)
    assert load(tmp_path, name=None, secret=None).identity.secret
    assert [record.message for record in caplog.records if "is not read" in record.message] == []
