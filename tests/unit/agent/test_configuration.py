"""The agent's configuration: the contract's keys, where they come from, and every fault at once."""

import json
import logging
import re
import socket
from pathlib import Path
from typing import Any

import pytest
from tests.unit.agent.conftest import Write

from turku.agent.config.loading import load
from turku.agent.config.model import program_words
from turku.errors import ConfigurationError, InvalidValue
from turku.protocol.messages import Registration

EVERY_KEY: dict[str, Any] = {
    "api_url": "https://turku.example.com/v1/",
    "api_auth_name": "web",
    "api_auth_secret": "s" * 30,
    "allow_plain_http": True,
    "machine_uuid": "9BEF0A75-5A9B-43F7-A66A-7E8C6D7AD91D",
    "machine_secret": "x" * 30,
    "environment_name": "production",
    "service_name": "sql",
    "unit_name": "sql/0",
    "published": False,
    "lock_dir": "/run/lock/turku",
    "rsyncd_command": ["nice", "rsync"],
    "rsyncd_local_address": "::1",
    "rsyncd_user": "backup",
    "rsyncd_group": "backup",
    "ssh_command": ["ssh", "-4"],
    "ssh_key_type": "rsa",
    "gonogo_program": ["/usr/local/bin/may-i", "back up"],
    "restore_path": "/srv/restore",
    "restore_module": "restore-here",
    "session_timeout_seconds": 3600,
}


def faults(error: pytest.ExceptionInfo[ConfigurationError]) -> list[str]:
    return [line.strip() for line in error.value.message.splitlines()[1:]]


def test_a_minimal_configuration_has_the_contracts_defaults(write: Write, tmp_path: Path) -> None:
    agent = load(write())
    assert agent.identity.unit_name == socket.gethostname()
    assert agent.identity.published is None
    assert agent.state.lock_dir == tmp_path / "var/lock"
    assert (agent.rsyncd.rsyncd_command, agent.tunnel.ssh_command) == (("rsync",), ("ssh",))
    assert (agent.rsyncd.rsyncd_local_address, agent.rsyncd.rsyncd_user, agent.rsyncd.rsyncd_group) == (
        "127.0.0.1",
        "root",
        "*",
    )
    assert agent.tunnel.ssh_key_type == "ed25519"
    assert (str(agent.restore.restore_path), agent.restore.restore_module) == (
        "/var/backups/turku-agent/restore",
        "turku-restore",
    )
    assert agent.backup.gonogo_program is None
    assert agent.api.registration is None


def test_var_dir_is_the_contracts_where_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.d").mkdir()
    (tmp_path / "config.d/a.json").write_text('{"api_url": "https://x/v1"}')
    assert load(tmp_path).state.var_dir == Path("/var/lib/turku-agent")


def test_every_key_is_read(write: Write) -> None:
    agent = load(write(**EVERY_KEY))
    assert agent.api.api_url == "https://turku.example.com/v1"
    assert agent.api.registration == Registration(name="web", secret="s" * 30)
    assert agent.identity.machine_uuid == "9bef0a75-5a9b-43f7-a66a-7e8c6d7ad91d"
    assert agent.identity.machine_secret is not None
    assert agent.identity.machine_secret.reveal() == "x" * 30
    assert "x" * 30 not in repr(agent)
    for section, keys in (
        (agent.identity, ("environment_name", "service_name", "unit_name", "published")),
        (agent.rsyncd, ("rsyncd_local_address", "rsyncd_user", "rsyncd_group")),
        (agent.tunnel, ("ssh_key_type", "session_timeout_seconds")),
        (agent.restore, ("restore_module",)),
    ):
        for key in keys:
            assert getattr(section, key) == EVERY_KEY[key]
    assert agent.rsyncd.rsyncd_command == tuple(EVERY_KEY["rsyncd_command"])
    assert agent.tunnel.ssh_command == tuple(EVERY_KEY["ssh_command"])
    assert agent.backup.gonogo_program == tuple(EVERY_KEY["gonogo_program"])
    assert (str(agent.state.lock_dir), str(agent.restore.restore_path)) == ("/run/lock/turku", "/srv/restore")


def test_the_nameless_registration_string_is_kept_as_it_is(write: Write) -> None:
    assert load(write(api_auth="MACHINE AUTH STRING")).api.registration == "MACHINE AUTH STRING"


def test_the_command_lines_registration_wins(write: Write) -> None:
    agent = load(write(api_auth="other"), api_auth_name="web", api_auth_secret="secret")
    assert agent.api.registration == Registration(name="web", secret="secret")


def test_etc_wins_over_the_state_directory(write: Write, tmp_path: Path) -> None:
    state = tmp_path / "var/config.d"
    state.mkdir(parents=True)
    (state / "10-machine_uuid.json").write_text(
        json.dumps({"machine_uuid": "9bef0a75-5a9b-43f7-a66a-7e8c6d7ad91d", "unit_name": "from-state"})
    )
    agent = load(write(unit_name="from-etc"))
    assert agent.identity.unit_name == "from-etc"
    assert agent.identity.machine_uuid == "9bef0a75-5a9b-43f7-a66a-7e8c6d7ad91d"


def test_files_are_merged_in_order_of_their_names_yaml_too(write: Write) -> None:
    directory = write(unit_name="first", sources={"etc": {"path": "/etc", "frequency": "daily"}})
    (directory / "config.d/zz.yaml").write_text("unit_name: last\n")
    (directory / "sources.d/zz.yaml").write_text("etc:\n  frequency: weekly\nhome:\n  path: /home\n")
    agent = load(directory)
    assert agent.identity.unit_name == "last"
    assert agent.sources["etc"].options == {"path": "/etc", "frequency": "weekly"}
    assert agent.sources["home"].path == "/home"


def test_unknown_source_options_are_kept_verbatim(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    options = {"path": "/etc", "x-team": {"name": "ops", "pager": [1, None, True]}, "frequncy": "daily"}
    assert load(write(sources={"etc": options})).sources["etc"].options == options
    assert caplog.text == ""


def test_a_source_without_path_is_no_source(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    assert list(load(write(sources={"a": {}, "b": {"path": None}, "etc": {"path": "/etc"}})).sources) == ["etc"]
    assert caplog.text.count("is not a source, because it has no path") == 2


def test_an_unknown_key_is_a_warning_with_a_suggestion(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        load(write(unit_nmae="x"))
    assert "config.json: unit_nmae: unknown key, ignored; did you mean 'unit_name'?" in caplog.text


def test_all_faults_are_reported_at_once_each_with_file_and_key(write: Write) -> None:
    directory = write(
        api_url="http://turku.example.com/v1",
        api_auth_name="half",
        published="yes",
        rsyncd_command="rsync",
        rsyncd_local_address="here",
        restore_path="relative",
        gonogo_program="'unbalanced",
        machine_uuid="no-uuid",
        environment_name="two\nlines",
        session_timeout_seconds=0,
    )
    (directory / "config.d/broken.json").write_text("{")
    with pytest.raises(ConfigurationError) as error:
        load(directory)
    reported = faults(error)
    assert error.value.exit_code == 78
    config = directory / "config.d/config.json"
    for place in (
        f"{directory}/config.d/broken.json: malformed JSON",
        *(f"{config}: {key}: " for key in ("api_url", "api_auth_name", "published", "rsyncd_command")),
        *(f"{config}: {key}: " for key in ("rsyncd_local_address", "restore_path", "gonogo_program")),
        *(f"{config}: {key}: " for key in ("machine_uuid", "environment_name", "session_timeout_seconds")),
    ):
        assert [line for line in reported if line.startswith(place)], place
    assert len(reported) == 11


def test_an_empty_directory_misses_the_address(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="api_url: is required"):
        load(tmp_path)


@pytest.mark.parametrize("path", ["/a\nb", "/a\0b", "/a\udce9", "etc", "", 7, ["/etc"]])
def test_a_path_that_cannot_be_served_or_sent_keeps_its_source_out(write: Write, path: Any) -> None:
    agent = load(write(sources={"etc": {"path": path}}))
    assert not agent.sources
    assert re.search(r"sources\.json, line 1: etc: ", agent.unusable_sources["etc"])


def test_a_dot_in_a_sources_name_does_not_confuse_its_place(write: Write) -> None:
    agent = load(write(sources={"var.log": {"path": "relative"}}))
    assert re.search(r"sources\.json, line 1: var\.log: path", agent.unusable_sources["var.log"])


def test_empty_names_are_as_good_as_absent(write: Write) -> None:
    agent = load(write(environment_name="", unit_name=" "))
    assert agent.identity.environment_name is None
    assert agent.identity.unit_name == socket.gethostname()


def test_a_go_no_go_program_is_split_as_a_shell_would(write: Write) -> None:
    assert load(write(gonogo_program="may-i 'back up' now; rm x")).backup.gonogo_program == (
        *("may-i", "back up", "now;", "rm", "x"),
    )
    bad: object
    for bad in ("", "''", [], "a 'b"):
        with pytest.raises(InvalidValue):
            program_words(bad)
