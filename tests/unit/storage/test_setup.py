"""``turku-storage setup``: what it writes, what it refuses, and that it can be repeated."""

import json
import os
import socket
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from tests.support.backed_up_machine import storage_configuration

from turku.core.command import CompletedProgram
from turku.core.secret import Secret
from turku.core.setup import teardown
from turku.core.setup.host import Host
from turku.core.setup.record import Record
from turku.errors import CommandFailed, ConfigurationError, TurkuError, UsageError
from turku.protocol.join_token import JoinKind, JoinToken
from turku.storage.commands import host_setup
from turku.storage.config import loading
from turku.storage.disk import volume_marks
from turku.storage.fs import mounts
from turku.storage.fs.mounts import VolumeMount
from turku.storage.setup import config_file, plan, volume_choice
from turku.storage.setup.config_file import Choices, Configuration
from turku.storage.setup.volume_choice import VolumeChoice

TOKEN = JoinToken(JoinKind.STORAGE, "https://turku.example.com/v1", Secret("s" * 30), ("SHA256:" + "A" * 43,))
ETC = Path("/etc/turku-storage")
USER = "turku-storage"
# Root gives a directory away to it. Anybody else can only keep it.
UID, GID = os.geteuid() or 999, os.getegid() or 999
ASKS = "authorizedkeyscommand /usr/local/bin/turku-storage authorized-keys %u %t %k\nport 2222\nport 22\n"


class Programs:
    """A host's programs: recorded, and answered."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.called: list[str] = []
        self.failing = ""
        self.sshd_settings = ASKS
        self.running: set[str] = set()

    def __call__(self, argv: Sequence[str]) -> CompletedProgram:
        line = " ".join(argv)
        if argv[1] not in ("--quiet", "show", "-T"):
            self.called.append(line.replace(str(self.root), "ROOT"))
        if argv[0] == "systemd-sysusers":
            with (self.root / "etc/passwd").open("a") as accounts:
                accounts.write(f"{USER}:x:{UID}:{GID}::/var/lib/turku-storage-login:/bin/sh\n")
        if argv[:3] == ["systemctl", "enable", "--now"]:
            self.running.add(argv[3])
        is_off = argv[1] == "--quiet" and argv[-1] not in self.running
        if is_off or (self.failing and self.failing in line):
            raise CommandFailed(f"{line} ended with exit code 1", details="bad line")
        output = self.sshd_settings if "-T" in argv else "NeedDaemonReload=no\n"
        return CompletedProgram(tuple(argv), 0, (), output.encode())


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    return Programs(tmp_path)


@pytest.fixture
def host(tmp_path: Path, programs: Programs) -> Host:
    for directory in ("etc/ssh", "etc/cron.d", "run/systemd/system", "var/lib", "srv/turku", "usr/local/bin"):
        (tmp_path / directory).mkdir(parents=True)
    for name in plan.PROGRAMS:
        (tmp_path / "usr/local/bin" / name).touch(0o755)
    (tmp_path / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    (tmp_path / "etc/group").write_text(f"root:x:0:\n{USER}:x:{GID}:\n")
    programs.running.add("ssh.service")
    return Host(tmp_path, programs)


def choices(**settings: object) -> Choices:
    given = {"token": TOKEN, "volumes": volume_choice.parse(["/srv/turku"]), "ssh_host": "storage.example.com"}
    return Choices(**{**given, **settings})  # type: ignore[arg-type]


def configured(host: Host, **settings: object) -> Configuration:
    return config_file.configuration(choices(**settings), host, ETC, user=USER, sshd_port=22)


def set_up(host: Host, registrations: list[str], **settings: object) -> str:
    said: list[str] = []
    made = plan.plan(host, configured(host, **settings), ETC, lambda: registrations.append("registered"))
    assert made.carry_out(said.append, is_confirmed=True)
    return "\n".join(said)


def test_the_token_and_the_options_become_the_configuration(host: Host) -> None:
    registrations: list[str] = []
    set_up(host, registrations, name="primary", slots=8)
    written = host.path(ETC / "config.d/setup.json")
    assert json.loads(written.read_text()) == {
        "api_url": "https://turku.example.com/v1",
        "api_key_fingerprints": ["SHA256:" + "A" * 43],
        "name": "primary",
        "volumes": {"turku": {"path": "/srv/turku"}},
        "ssh_ping_host": "storage.example.com",
        "ssh_ping_port": 22,
        "ssh_ping_user": USER,
        "authorized_keys_command": "sudo turku-storage-ping",
        "slots": 8,
    }
    assert stat.S_IMODE(written.stat().st_mode) == 0o600
    assert registrations == ["registered"]


def test_the_secret_of_the_token_is_in_no_file(host: Host) -> None:
    set_up(host, [])
    files = [path for path in host.root.rglob("*") if path.is_file()]
    assert files
    assert [path for path in files if TOKEN.secret.reveal().encode() in path.read_bytes()] == []


def test_the_second_run_changes_nothing(host: Host, programs: Programs) -> None:
    registrations: list[str] = []
    set_up(host, registrations)
    programs.called.clear()
    assert "is set up: all" in set_up(host, registrations)
    assert "is set up: all" in set_up(host, registrations, token=None, volumes=(), ssh_host=None)
    assert (programs.called, registrations) == ([], ["registered"])


def test_sudo_and_sshd_are_tried_before_they_take_effect(host: Host, programs: Programs) -> None:
    set_up(host, [])
    calls = [line.split("/")[-1] if "sshd" in line else line.split(" /")[0] for line in programs.called]
    assert calls.index("visudo -cf") < calls.index("sshd -t") < programs.called.index("systemctl reload ssh.service")
    sudoers = host.path("/etc/sudoers.d/turku-storage")
    assert stat.S_IMODE(sudoers.stat().st_mode) == 0o440
    assert "/usr/local/bin/turku-storage-ping ^" in sudoers.read_text()
    snippet = host.path("/etc/ssh/sshd_config.d/turku-storage.conf").read_text()
    assert "\n    AuthorizedKeysCommand /usr/local/bin/turku-storage authorized-keys" in snippet


@pytest.mark.parametrize(
    ("failing", "place"),
    [("visudo", "etc/sudoers.d/turku-storage"), ("sshd -t", "etc/ssh/sshd_config.d/turku-storage.conf")],
)
def test_a_snippet_that_is_refused_is_not_left_there(failing: str, place: str, host: Host, programs: Programs) -> None:
    programs.failing = failing
    with pytest.raises(CommandFailed):
        set_up(host, [])
    assert not (host.root / place).exists()
    assert "systemctl reload ssh.service" not in programs.called
    programs.failing = ""
    set_up(host, [])
    assert (host.root / place).exists()


def test_an_sshd_that_does_not_read_the_snippet_is_named(host: Host, programs: Programs) -> None:
    programs.sshd_settings = "authorizedkeyscommand none\n"
    with pytest.raises(TurkuError, match="sshd does not read") as caught:
        set_up(host, [])
    assert "Include /etc/ssh/sshd_config.d/*.conf" in caught.value.hint


def test_without_systemd_the_crontab_is_installed(host: Host) -> None:
    host.path("/run/systemd/system").rmdir()
    set_up(host, [])
    assert host.path("/etc/cron.d/turku-storage").exists()
    assert not host.path("/etc/systemd/system").exists()


def test_teardown_leaves_the_volume_and_what_was_edited(host: Host, programs: Programs) -> None:
    set_up(host, [])
    (host.path("/srv/turku") / volume_marks.FILE).write_text("{}")
    host.path("/etc/ssh/sshd_config.d/turku-storage.conf").write_text("# mine\n")
    said: list[str] = []
    teardown.tear_down(plan.PROGRAM, host, said.append, is_confirmed=True)
    assert (host.path("/srv/turku") / volume_marks.FILE).exists()
    assert host.path("/etc/ssh/sshd_config.d/turku-storage.conf").exists()
    assert not host.path("/etc/sudoers.d/turku-storage").exists()
    assert not host.path(ETC).exists()
    assert [line for line in programs.called if "disable" in line][-1].endswith("turku-storage-drill.timer")
    assert any("goes on knowing it" in line for line in said)


def test_a_volume_is_added_to_those_that_there_are(host: Host) -> None:
    set_up(host, [])
    set_up(host, [], token=None, volumes=volume_choice.parse(["second=/srv/second"]))
    written = json.loads(host.path(ETC / "config.d/setup.json").read_text())
    assert written["volumes"] == {"turku": {"path": "/srv/turku"}, "second": {"path": "/srv/second"}}
    assert host.path("/srv/second").is_dir()


def test_a_storage_that_was_torn_down_keeps_its_name(
    tmp_path: Path, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    var_dir = host.path("/var/lib/turku-storage")
    made = storage_configuration(tmp_path / "made", name="primary", var_dir=str(var_dir))
    generated = var_dir / "config.d" / loading.GENERATED_FILE
    generated.parent.mkdir(parents=True, exist_ok=True)
    generated.write_text('{"secret": "kept"}')
    loading.remember_name(made)
    assert json.loads(generated.read_text()) == {"name": "primary", "secret": "kept"}
    assert configured(host).content["name"] == "primary"
    assert configured(host, name="other").content["name"] == "other"


def test_another_coordinator_is_registered_with_as_well(host: Host) -> None:
    registrations: list[str] = []
    set_up(host, registrations)
    set_up(host, registrations, token=JoinToken(JoinKind.STORAGE, "https://other.example.com/v1", Secret("t" * 30)))
    assert len(registrations) == 2


def test_a_new_coordinator_at_the_same_address_is_registered_with(host: Host) -> None:
    registrations: list[str] = []
    set_up(host, registrations)
    # It has another secret, and its certificate is one that an authority signed.
    token = JoinToken(JoinKind.STORAGE, TOKEN.url, Secret("t" * 30))
    set_up(host, registrations, token=token)
    assert len(registrations) == 2
    written = json.loads(host.path(ETC / "config.d/setup.json").read_text())
    assert "api_key_fingerprints" not in written
    # The same token, or none, is no reason to register again.
    set_up(host, registrations, token=token)
    set_up(host, registrations, token=None)
    set_up(host, registrations, token=token)
    assert len(registrations) == 2


def test_a_token_that_was_used_does_not_undo_what_was_edited_since(host: Host) -> None:
    registrations: list[str] = []
    set_up(host, registrations)
    written = host.path(ETC / "config.d/setup.json")
    # The coordinator has another key, or another address.
    edited = {**json.loads(written.read_text()), "api_key_fingerprints": ["SHA256:" + "B" * 43]}
    written.write_text(json.dumps(edited))
    record = Record(host, plan.PROGRAM)
    assert record.knows_token(TOKEN.url, TOKEN.digest())
    set_up(host, registrations, knows_token=True)
    assert json.loads(written.read_text()) == edited
    # Without the file, the token has all that is needed.
    written.unlink()
    set_up(host, registrations, knows_token=True)
    assert json.loads(written.read_text())["api_url"] == TOKEN.url


def test_a_failed_registration_is_still_due_without_the_token(host: Host) -> None:
    set_up(host, [])
    token = JoinToken(JoinKind.STORAGE, TOKEN.url, Secret("t" * 30), TOKEN.key_fingerprints)

    def refuse() -> None:
        raise CommandFailed("the token has expired")

    with pytest.raises(CommandFailed):
        plan.plan(host, configured(host, token=token), ETC, refuse).carry_out(print, is_confirmed=True)
    registrations: list[str] = []
    set_up(host, registrations, token=None)
    assert registrations == ["registered"]


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: text.replace('"ssh_ping_user": "turku-storage"', '"ssh_ping_user": "backup"'),
        lambda text: text.replace('"sudo turku-storage-ping"', '"doas turku-storage-ping"'),
    ],
)
def test_another_login_in_setup_json_is_not_put_back(host: Host, edit: Callable[[str], str]) -> None:
    set_up(host, [])
    written = host.path(ETC / "config.d/setup.json")
    written.write_text(edit(written.read_text()))
    before = written.read_text()
    with pytest.raises(UsageError, match="was set up by hand"):
        configured(host, token=None)
    assert written.read_text() == before


def test_what_is_there_twice_is_not_lost(host: Host) -> None:
    set_up(host, [])
    written = host.path(ETC / "config.d/setup.json")
    written.write_text(written.read_text().replace('"volumes"', '"volumes": {}, "volumes"', 1))
    before = written.read_text()
    set_up(host, [], slots=7)
    assert written.read_text() == before


def test_a_token_of_another_coordinator_than_that_of_an_own_file_is_refused(host: Host) -> None:
    place = host.path(ETC / "config.d")
    place.mkdir(parents=True)
    (place / "50-ansible.json").write_text('{"api_url": "https://other.example.com/v1"}')
    with pytest.raises(UsageError, match=r"from https://turku\.example\.com/v1"):
        configured(host)


def test_what_was_edited_stays_when_something_else_is_chosen_anew(host: Host) -> None:
    set_up(host, [])
    written = host.path(ETC / "config.d/setup.json")
    written.write_text(json.dumps({**json.loads(written.read_text()), "trash_days": 30}))
    said = set_up(host, [], slots=9)
    assert "keeps what the present one has besides" in said
    content = json.loads(written.read_text())
    assert (content["trash_days"], content["slots"]) == (30, 9)
    # What cannot be read is nobody's to overwrite.
    written.write_text("{")
    assert "it was edited since" in set_up(host, [], slots=7)
    assert written.read_text() == "{"


def test_what_an_administrator_wrote_is_left_to_that_file_and_a_volume_is_added(host: Host) -> None:
    place = host.path(ETC / "config.d")
    place.mkdir(parents=True)
    (place / "config.json").write_text('{"name": "mine", "volumes": {"data": {"path": "/srv/data"}}}')
    chosen = configured(host, name="theirs")
    assert "name" not in chosen.content
    assert chosen.content["volumes"] == {"turku": {"path": "/srv/turku"}}
    assert set(chosen.volumes) == {VolumeChoice("data", Path("/srv/data")), VolumeChoice("turku", Path("/srv/turku"))}


def test_a_storage_that_machines_log_in_to_another_way_is_left_alone(host: Host) -> None:
    place = host.path(ETC / "config.d")
    place.mkdir(parents=True)
    (place / "config.json").write_text('{"ssh_ping_user": "root"}')
    with pytest.raises(UsageError, match="set up by hand, with ssh_ping_user 'root'"):
        configured(host)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"token": None}, "a join token is needed"),
        ({"volumes": ()}, "a volume is needed"),
        ({"ssh_host": "localhost"}, "which is their own"),
    ],
)
def test_what_is_missing_is_named_with_an_example(settings: dict[str, object], message: str, host: Host) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        configured(host, **settings)
    assert caught.value.hint


def test_names_of_volumes_come_from_their_paths() -> None:
    assert volume_choice.parse(["/srv/turku", "b=/mnt/a b"]) == (
        VolumeChoice("turku", Path("/srv/turku")),
        VolumeChoice("b", Path("/mnt/a b")),
    )


@pytest.mark.parametrize("texts", [["srv"], ["/"], ["/srv/../etc"], ["a=b"], ["/a/x", "/b/x"], ["/srv/\n"]])
def test_a_volume_that_cannot_be_one_is_a_usage_error(texts: list[str]) -> None:
    with pytest.raises(UsageError):
        volume_choice.parse(texts)


@pytest.fixture
def only_root_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory all of whose parents belong to root, as far as tests can see."""
    if os.geteuid() != 0:
        pytest.skip("the directories belong to another user")
    volume = tmp_path / "volume"
    volume.mkdir(mode=0o755)
    return volume


def test_a_volume_of_root_alone_can_be_used(only_root_writes: Path) -> None:
    volume_choice.require_usable(VolumeChoice("data", only_root_writes))
    volume_choice.require_usable(VolumeChoice("data", only_root_writes / "new"))


@pytest.mark.parametrize("fault", ["owner", "mode", "parent"])
def test_a_volume_that_others_may_write_to_is_refused(fault: str, only_root_writes: Path) -> None:
    if fault == "owner":
        os.chown(only_root_writes, 1, 1)
    elif fault == "mode":
        only_root_writes.chmod(0o1777)
    else:
        only_root_writes.parent.chmod(0o777)
    with pytest.raises(ConfigurationError, match="others than root") as caught:
        volume_choice.require_usable(VolumeChoice("data", only_root_writes))
    assert "chmod go-w" in caught.value.hint


def test_a_volume_that_is_in_fstab_and_not_mounted_is_refused(
    only_root_writes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(volume_marks, "unmounted_point", lambda path: path.parent)
    with pytest.raises(ConfigurationError, match="not mounted") as caught:
        volume_choice.require_usable(VolumeChoice("data", only_root_writes))
    assert f"mount {only_root_writes.parent}" in caught.value.hint


def test_the_line_for_fstab_names_the_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounts, "is_on_root_file_system", lambda _path: False)
    monkeypatch.setattr(mounts, "mount_of", lambda _path: VolumeMount(tmp_path, frozenset({"rw"}), "xfs", "/dev/sdb1"))
    monkeypatch.setattr(mounts, "uuid_of", lambda _device: "1234-5678")
    *_text, line = volume_choice.advice(VolumeChoice("data", tmp_path))
    assert line.split() == ["UUID=1234-5678", str(tmp_path), "xfs", "defaults,nosuid,nodev", "0", "2"]
    mounted = VolumeMount(tmp_path, frozenset({"rw", "nosuid", "nodev"}), "xfs", "/dev/sdb1")
    monkeypatch.setattr(mounts, "mount_of", lambda _path: mounted)
    assert volume_choice.advice(VolumeChoice("data", tmp_path)) == []


def test_the_root_file_system_needs_a_word_of_its_own(
    host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(volume_choice, "is_on_root_file_system", lambda _choice: True)
    from turku.storage.cli import PROGRAM

    def consent(*words: str) -> None:
        host_setup._require_consent(PROGRAM.parser("setup").parse_args(["setup", *words]), configured(host))

    with pytest.raises(UsageError) as caught:
        consent("--yes")
    assert "--allow-root-file-system" in caught.value.hint
    with pytest.raises(UsageError, match="nobody can be asked"):
        consent()
    consent("--yes", "--allow-root-file-system")
    consent("--dry-run")


def test_what_setup_writes_can_be_loaded(tmp_path: Path, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    content = {**configured(host).content, "ssh_ping_user": "root", "var_dir": str(tmp_path / "var")}
    # A version that does not pin keys yet ignores them.
    place = tmp_path / "storage/config.d"
    place.mkdir(parents=True)
    (place / "setup.json").write_text(json.dumps(content))
    loaded = loading.load(tmp_path / "storage")
    assert loaded.identity.name == socket.gethostname()
    assert loaded.ssh.authorized_keys_command == "sudo turku-storage-ping"
