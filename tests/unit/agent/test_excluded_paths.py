"""The paths of a source that are not offered, and the message about them."""

import json
import logging
from pathlib import Path

import pytest
from tests.unit.agent.conftest import Write

from turku.agent import registration
from turku.agent.capture import excluded_paths, own_paths
from turku.agent.capture import mounts as mount_points
from turku.agent.capture.mounts import Mount
from turku.agent.config import loading as configuration
from turku.agent.config.model import AgentConfig, SourceConfig
from turku.core.configuration import declaration


def source(path: Path | str, **options: object) -> SourceConfig:
    return SourceConfig("data", str(path), {"path": str(path), **options})


def mounted(monkeypatch: pytest.MonkeyPatch, *paths: tuple[Path | str, str]) -> list[Mount]:
    root = Mount(1, 0, Path("/"), "ext4")
    found = [root, *(Mount(10 + number, 1, Path(path), kind) for number, (path, kind) in enumerate(paths))]
    monkeypatch.setattr(mount_points, "all_mounts", lambda: found)
    return found


@pytest.fixture
def agent(write: Write) -> AgentConfig:
    return configuration.load(write())


@pytest.fixture(autouse=True)
def storage_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "etc-storage"
    (directory / "config.d").mkdir(parents=True)
    real = excluded_paths.storage_volumes
    monkeypatch.setattr(excluded_paths, "storage_volumes", lambda mounts: real(mounts, directory))
    return directory


def test_the_option_is_on_by_itself_for_the_whole_system_alone(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/")
    assert excluded_paths.stays_on_one_file_system(source("/"))
    assert excluded_paths.stays_on_one_file_system(source(tmp_path / "link"))
    assert not excluded_paths.stays_on_one_file_system(source("/home"))
    assert not excluded_paths.stays_on_one_file_system(source("/", one_file_system=False))
    assert excluded_paths.stays_on_one_file_system(source("/home", one_file_system=True))
    assert excluded_paths.stays_on_one_file_system(source("/", one_file_system="no"))


def test_mounts_below_are_offered_empty_and_named(
    agent: AgentConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    data = tmp_path / "data"
    mounted(monkeypatch, (data / "disk", "xfs"), (data / "proc", "proc"), (tmp_path / "other", "ext4"))
    assert excluded_paths.find(agent, source(data)).emptied == ()
    assert caplog.messages == []
    found = excluded_paths.find(agent, source(data, one_file_system=True))
    assert found.emptied == (data / "disk", data / "proc")
    assert caplog.messages == [
        "source data: other file systems are not backed up with it (one_file_system): "
        f"{data / 'disk'} (xfs), 1 that the kernel makes, as /proc"
    ]


def test_many_mounts_take_one_line(
    agent: AgentConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    data = tmp_path / "data"
    mounted(monkeypatch, *((data / f"{number:05}", "overlay") for number in range(5000)))
    assert len(excluded_paths.find(agent, source(data, one_file_system=True)).emptied) == 5000
    [message] = caplog.messages
    assert len(message) < 5000
    assert message.endswith(", 4980 more")


def test_a_mount_by_way_of_a_link_is_found(agent: AgentConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    mounted(monkeypatch, (tmp_path / "real" / "disk", "xfs"))
    found = excluded_paths.find(agent, source(tmp_path / "link", one_file_system=True))
    assert found.emptied == (tmp_path / "link" / "disk",)


def test_the_agents_own_state_is_in_no_backup(
    agent: AgentConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounted(monkeypatch)
    assert excluded_paths.find(agent, source("/")).emptied == (agent.state.var_dir,)
    assert excluded_paths.find(agent, source(tmp_path / "etc")).emptied == ()
    assert own_paths.withheld(agent, [source("/"), source(tmp_path / "etc")]) == {}
    for path in (agent.state.var_dir, agent.state.var_dir / "config.d"):
        [reason] = own_paths.withheld(agent, [source(path)]).values()
        assert "is the agent's own state" in reason


def test_files_with_secrets_are_in_no_backup_and_others_are(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounted(monkeypatch)
    agent = configuration.load(write(api_auth="x" * 30, lock_dir=str(tmp_path / "locks")))
    directory = agent.config_dir / "config.d"
    for name, content in {
        "10-names.json": '{"unit_name": "web"}',
        "20-secret.yaml": "api_auth_secret: x\n",
        "30-broken.json": "{",
        "config.json~": "{}",
        ".config.json.swp": "",
    }.items():
        (directory / name).write_text(content)
    hidden = excluded_paths.find(agent, source(tmp_path)).hidden
    secret = [".config.json.swp", "20-secret.yaml", "30-broken.json", "config.json", "config.json~"]
    locks = ("turku-agent-identity", "turku-agent-ping", "turku-agent-restore", "turku-update-config")
    assert hidden == (*(directory / name for name in secret), *(tmp_path / "locks" / f"{name}.lock" for name in locks))
    (tmp_path / "locks").mkdir()
    (tmp_path / "locks" / "turku-agent-ping.lock").touch()
    notes = list(own_paths.notes(agent, source(tmp_path)))
    assert len(notes) == 1 + len(secret) + 1
    assert list(own_paths.notes(agent, source("/usr"))) == []


def test_every_secret_key_of_the_configuration_is_known_as_one() -> None:
    secret = {key.name for key in declaration.all_keys(AgentConfig) if "Secret" in str(key.plain_type)}
    assert secret | {"api_auth"} == own_paths.SECRET_KEYS


def test_a_volume_of_the_storage_on_this_machine_is_excluded_and_said(
    agent: AgentConfig,
    tmp_path: Path,
    storage_directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    srv = tmp_path / "srv"
    for name in ("configured", "marked", "plain", "user"):
        (srv / name).mkdir(parents=True)
    (srv / "marked" / ".turku-volume").write_text("{}")
    (srv / "user" / ".turku-volume").write_text("{}")
    volumes = {"a": {"path": str(srv / "configured")}, "b": {"path": 7}, "c": {"path": str(srv / "gone")}, "d": None}
    (storage_directory / "config.d" / "config.json").write_text(json.dumps({"volumes": volumes}))
    mounted(monkeypatch, (srv / "marked", "xfs"), (srv / "plain", "xfs"), (srv / "user", "fuse.sshfs"))
    found = excluded_paths.find(agent, source(srv))
    assert found.emptied == (srv / "configured", srv / "marked")
    assert caplog.messages == [
        f"source data: {srv / name} is not backed up: it is a volume of the storage on this machine"
        for name in ("configured", "marked")
    ]
    # Whoever names the volume itself wants it.
    assert excluded_paths.find(agent, source(srv / "configured")).emptied == ()


@pytest.mark.parametrize("content", ["{", "[]", '{"volumes": []}', '{"volumes": {"a": {"path": "x\\u0000"}}}'])
def test_a_damaged_configuration_of_a_storage_is_its_own_matter(
    agent: AgentConfig, tmp_path: Path, storage_directory: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    (storage_directory / "config.d" / "config.json").write_text(content)
    mounted(monkeypatch)
    assert excluded_paths.find(agent, source(tmp_path / "etc")).emptied == ()


def test_a_restore_deletes_nothing_on_mounts_of_which_it_does_not_know_whether_the_backup_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounted(monkeypatch, (tmp_path / "disk", "xfs"), (tmp_path / "proc", "proc"))
    # A machine that replaces a lost one has no sources yet.
    assert excluded_paths.protected_paths(None, tmp_path) == {b"disk", b"proc"}
    assert excluded_paths.protected_paths(source(tmp_path), tmp_path) == {b"proc"}
    assert excluded_paths.protected_paths(source(tmp_path, one_file_system=True), tmp_path) == {b"disk", b"proc"}


def test_the_check_warns_of_disks_and_volumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "volume").mkdir()
    (tmp_path / "volume" / ".turku-volume").touch()
    mounted(monkeypatch, (tmp_path / "disk", "ext4"), (tmp_path / "volume", "btrfs"))
    texts = [remark.text for remark in registration.source_warnings(source(tmp_path, one_file_system=True))]
    assert texts == [
        "other file systems are not backed up with it (one_file_system): "
        f"{tmp_path / 'disk'} (ext4), {tmp_path / 'volume'} (btrfs)",
        f"{tmp_path / 'volume'} is not backed up: it is a volume of the storage on this machine",
    ]
    [remark] = registration.source_warnings(source("/etc", one_file_system="yes"))
    assert (remark.is_problem, remark.text) == (True, "one_file_system: must be true or false")
