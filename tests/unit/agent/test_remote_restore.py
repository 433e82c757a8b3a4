"""The places that a restore ordered by the coordinator may write to, and the answers to malformed orders."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from turku.agent.config import loading as configuration
from turku.agent.config.model import AgentConfig
from turku.agent.restore import remote_restore
from turku.agent.restore.remote_restore import NotAllowedHere, allowed_target, decode_orders
from turku.core.configuration.declaration import with_values
from turku.errors import ConfigurationError

MakeAgent = Callable[..., AgentConfig]

ORDER: dict[str, Any] = {
    "request": "0d4c5b6e-6a35-4b39-9a3c-0a3c54b7b8e1",
    "source": "etc",
    "directory": "/srv/restored",
    "overwrite": "never",
    "storage": {
        "name": "primary",
        "ssh_ping_host": "primary.example.com",
        "ssh_ping_host_keys": ["ssh-ed25519 AAAA"],
        "ssh_ping_port": 22,
        "ssh_ping_user": "root",
    },
}


@pytest.fixture
def load(tmp_path: Path) -> MakeAgent:
    """Loads a configuration with these keys."""

    def make(**keys: Any) -> AgentConfig:
        directory = tmp_path / "etc" / "config.d"
        directory.mkdir(parents=True, exist_ok=True)
        content = {"api_url": "http://127.0.0.1:1/v1", "var_dir": str(tmp_path / "var"), **keys}
        (directory / "agent.json").write_text(json.dumps(content))
        return configuration.load(tmp_path / "etc")

    return make


def test_by_default_a_machine_runs_none(load: MakeAgent) -> None:
    with pytest.raises(NotAllowedHere, match="remote_restore is not set"):
        allowed_target(load().restore, "/srv/restored")


@pytest.mark.parametrize("path", ["srv", "./srv", "/srv/../etc"])
def test_the_setting_takes_absolute_directories(load: MakeAgent, path: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        load(remote_restore=["/srv", path])
    assert "remote_restore" in str(error.value.details) + error.value.message


def test_a_directory_inside_is_allowed_as_it_lies_on_the_disk(load: MakeAgent, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "name").symlink_to("real")
    (tmp_path / "real/inner").symlink_to(tmp_path / "real")
    agent = load(remote_restore=[str(tmp_path / "name")])
    for asked, target in (
        ("name", "real"),
        ("name/new/deep", "real/new/deep"),
        ("real/new", "real/new"),
        ("name/inner/new", "real/new"),
    ):
        assert allowed_target(agent.restore, str(tmp_path / asked)) == tmp_path / target


@pytest.mark.parametrize("asked", ["out", "out/new", "../x", "new/../../victim", "broken", "broken/x", "loop/x"])
def test_a_directory_outside_is_not(load: MakeAgent, tmp_path: Path, asked: str) -> None:
    (tmp_path / "victim").mkdir()
    (tmp_path / "allowed").mkdir()
    (tmp_path / "allowed/out").symlink_to("../victim")
    (tmp_path / "allowed/broken").symlink_to("/nowhere/at/all")
    (tmp_path / "allowed/loop").symlink_to("../victim/loop")
    (tmp_path / "victim/loop").symlink_to("../allowed/loop")
    agent = load(remote_restore=[str(tmp_path / "allowed")])
    directory = f"{tmp_path}/allowed/{asked}"
    if asked == "loop/x":
        # It leads nowhere, so that nothing can be written there: making it fails, wherever it is said to lie.
        with pytest.raises((NotAllowedHere, OSError)):
            allowed_target(agent.restore, directory).mkdir(parents=True)
        return
    with pytest.raises(NotAllowedHere):
        allowed_target(agent.restore, directory)


def test_orders_are_taken_as_they_are(load: MakeAgent) -> None:
    given = {**ORDER, "paths": ["ssh", {"b64": "/w=="}], "new_key": 1}
    [order] = decode_orders(msgspec.Raw(json.dumps([given]).encode()))
    assert (order.source, order.snapshot.name, order.of_machine) == ("etc", None, None)


@pytest.mark.parametrize(
    "given",
    [
        None,
        3,
        {},
        [3],
        [{}],
        [{**ORDER, "overwrite": "perhaps"}],
        [{**ORDER, "paths": ["x"] * 1001}],
        [{**ORDER, "storage": {}}],
        [{**ORDER, "directory": None}],
    ],
)
def test_orders_that_are_none_are_left(given: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert decode_orders(msgspec.Raw(json.dumps(given).encode())) == []
    assert "malformed restore requests" in caplog.text


def test_every_message_can_be_sent_and_stored() -> None:
    text = remote_restore._sendable("caf\udce9\0" + "x" * 5000)
    assert text.startswith("caf\\udce9\\x00")
    assert len(text) <= 4000
    msgspec.json.encode(text)


def test_the_setting_is_kept_apart_from_where_restore_mode_writes(load: MakeAgent) -> None:
    agent = with_values(load(remote_restore=["/srv/restored"]), restore_path=Path("/var/restore"))
    with pytest.raises(NotAllowedHere, match="not inside"):
        allowed_target(agent.restore, "/var/restore")
