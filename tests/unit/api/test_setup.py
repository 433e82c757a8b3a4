"""``turku-api setup``: its answers, what it writes, and that nothing is lost or shown that must not be."""

import argparse
import json
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import get_user_model

import turku
from turku.api import cli
from turku.api.commands import host_setup
from turku.api.configuration import environment, service_user
from turku.api.configuration.setup import account, answers, health_call, plan
from turku.api.configuration.setup.answers import Answers, Given, TlsWay
from turku.core.cli import person
from turku.core.command import CompletedProgram
from turku.core.secret import Secret
from turku.core.setup import teardown
from turku.core.setup.host import Host
from turku.errors import CommandFailed, ConfigurationError, UsageError

STATE = Path("/var/lib/turku-api")
UID, GID = os.geteuid() or 998, os.getegid() or 998
PASSWORD = "correct-horse-battery-staple"


class Programs:
    """The programs of a host, as far as setup sees them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.called: list[str] = []
        self.fed: list[bytes] = []
        self.running: set[str] = set()
        self.has_account = False
        self.failing = ""
        self.started_unix_seconds: float | None = None

    def __call__(self, argv: Sequence[str]) -> CompletedProgram:
        line = " ".join(argv).replace(str(self.root), "")
        is_question = any(word in line for word in ("--quiet", " show", "--check", "show_whether"))
        if not is_question:
            self.called.append(line)
        if self.failing and self.failing in line:
            raise CommandFailed(f"{line} ended with exit code 1")
        if argv[0] == "systemd-sysusers":
            with (self.root / "etc/passwd").open("a") as accounts:
                accounts.write(f"turku-api:x:{UID}:{GID}::{STATE}:/usr/sbin/nologin\n")
        if argv[:3] == ["systemctl", "enable", "--now"]:
            self.running.add(argv[3])
        if argv[0] == "systemctl" and argv[1] == "--quiet" and argv[-1] not in self.running:
            raise CommandFailed(f"{line} ended with exit code 3")
        return CompletedProgram(tuple(argv), 0, (), self._output(line, argv))

    def _output(self, line: str, argv: Sequence[str]) -> bytes:
        state = self.root / str(STATE).lstrip("/")
        if " tls create" in line:
            (state / "tls").mkdir(exist_ok=True)
            for path in answers.own_certificate():
                (self.root / str(path).lstrip("/")).touch()
        if " migrate" in line:
            if "--check" in line and not (state / "db.sqlite3").exists():
                raise CommandFailed("no database")
            for name in ("db.sqlite3", "secret_key", "hash_key"):
                (state / name).touch()
        if "ActiveEnterTimestamp" in line and self.started_unix_seconds is not None:
            return f"@{self.started_unix_seconds}\n".encode()
        if "show_whether" in line:
            return b"yes\n" if self.has_account else b"no\n"
        if "join-token" in line:
            return f"turku-{argv[-2]}-WORD\n".encode()
        return b"NeedDaemonReload=no\n"

    def feed(self, argv: Sequence[str], content: bytes) -> CompletedProgram:
        self.fed.append(content)
        self.has_account = True
        return self(argv)


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    return Programs(tmp_path)


@pytest.fixture
def host(tmp_path: Path, programs: Programs, monkeypatch: pytest.MonkeyPatch) -> Host:
    for directory in ("etc", "run/systemd/system", "var/lib", "usr/local/bin"):
        (tmp_path / directory).mkdir(parents=True)
    (tmp_path / "usr/local/bin/turku-api").touch(0o755)
    (tmp_path / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    (tmp_path / "etc/group").write_text(f"root:x:0:\nturku-api:x:{GID}:\n")
    monkeypatch.setattr(health_call, "answers", lambda *_arguments, **_settings: True)
    monkeypatch.setattr(answers, "is_free", lambda port: port == 443)
    return Host(tmp_path, programs, programs.feed)


def found(host: Host, earlier: dict[str, str] | None = None, **given: Any) -> Answers:
    settings = {"host_names": ("turku.example.com",), **given} if not earlier else given
    return answers.find(Given(**settings), earlier or {}, host, asks=False)


def set_up(host: Host, chosen: Answers, told: list[str] | None = None) -> str:
    said: list[str] = []
    first = plan.FirstAccount("admin", lambda: Secret(PASSWORD), lambda secret: (told or []).append(secret.reveal()))
    assert plan.plan(host, chosen, first).carry_out(said.append, is_confirmed=True)
    return "\n".join(said)


def test_the_defaults_are_its_own_certificate_on_port_443_and_sqlite(host: Host) -> None:
    host.path("/etc/localtime").symlink_to("/usr/share/zoneinfo/Europe/Helsinki")
    variables = found(host).variables()
    assert variables.pop("TURKU_BIND") in ("[::]:443", "0.0.0.0:443")
    assert variables == {
        "TURKU_URL": "https://turku.example.com",
        "TURKU_ALLOWED_HOSTS": "turku.example.com",
        "TURKU_TIME_ZONE": "Europe/Helsinki",
        "TURKU_TLS_CERTIFICATE": "/var/lib/turku-api/tls/certificate.pem",
        "TURKU_TLS_KEY": "/var/lib/turku-api/tls/key.pem",
    }


def test_another_port_is_taken_and_named_where_443_is_in_use(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "is_free", lambda _port: False)
    assert found(host).url == "https://turku.example.com:8443"
    assert found(host, port=9443).bind.endswith(":9443")


def test_behind_a_proxy_it_listens_on_loopback_and_trusts_it(host: Host) -> None:
    variables = found(host, tls=TlsWay.PROXY).variables()
    assert variables["TURKU_BIND"] == "127.0.0.1:8000"
    assert variables["TURKU_TRUSTED_PROXIES"] == "127.0.0.1,::1"
    assert "TURKU_TLS_KEY" not in variables
    assert environment.read(variables).errors == ()


def test_an_earlier_setup_counts_where_nothing_else_is_said(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    before = found(host, port=9443, time_zone="Asia/Tokyo", database="postgresql://u@db/x").variables()
    assert found(host, before).variables() == before
    assert found(host, before, time_zone="UTC").variables() == {**before, "TURKU_TIME_ZONE": "UTC"}
    moved = found(host, before, tls=TlsWay.PROXY)
    assert (moved.bind, moved.url) == ("127.0.0.1:8000", "https://turku.example.com")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"database": "postgresql://u:secret@db/x"}, "must not hold a password"),
        ({"database": "mysql://db/x"}, "neither 'postgresql' nor 'sqlite'"),
        ({"time_zone": "Mars/Base"}, "not a time zone"),
        ({"host_names": ("*",)}, "any host name"),
        ({"tls": TlsWay.FILES}, "absolute path"),
        ({"tls": TlsWay.FILES, "certificate": Path("/nowhere"), "key": Path("/nowhere")}, "cannot be read"),
        ({"url": "http://turku.example.com"}, "in the clear"),
    ],
)
def test_a_mistake_is_a_usage_error(given: dict[str, Any], message: str, host: Host) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        found(host, **given)
    assert "secret" not in str(caught.value).replace("secrets", "")


def test_the_password_of_the_database_comes_from_a_file_the_environment_or_a_question(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "postgresql://turku@db.example.com/turku"
    file = tmp_path / "password"
    file.write_text("p@ss/w:rd\nmore\n")
    by_file = found(host, database=url, database_password_file=file).database_url.reveal()
    assert environment.parse_database_url(by_file).password.reveal() == "p@ss/w:rd"
    monkeypatch.setenv("TURKU_DATABASE_PASSWORD", "other")
    assert ":other@" in found(host, database=url).database_url.reveal()
    monkeypatch.delenv("TURKU_DATABASE_PASSWORD")
    monkeypatch.setattr(person, "is_there", lambda: True)
    monkeypatch.setattr(person, "text", lambda _question, default: default)
    monkeypatch.setattr(person, "secret", lambda _question: Secret("typed"))
    asked = answers.find(Given(host_names=("a.example",), database=url), {}, host, asks=True)
    assert ":typed@" in asked.database_url.reveal()
    socket_url = "postgresql:///turku?host=/run/postgresql"
    quiet = answers.find(Given(host_names=("a.example",), database=socket_url), {}, host, asks=True)
    assert quiet.database_url.reveal() == socket_url


def test_a_person_is_asked_only_for_what_no_option_says(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def answer(question: str, default: str) -> str:
        asked.append(question)
        return "turku.example.org" if question.startswith("Name") else default

    monkeypatch.setattr(person, "text", answer)
    monkeypatch.setattr(person, "is_there", lambda: True)
    chosen = answers.find(Given(time_zone="UTC", tls=TlsWay.OWN), {}, host, asks=True)
    assert chosen.host_names == ("turku.example.org",)
    assert [question.partition(" ")[0].rstrip(",") for question in asked] == ["Name", "Database"]


def test_setup_makes_everything_in_order_and_once(host: Host, programs: Programs) -> None:
    told: list[str] = [""]
    set_up(host, found(host), told)
    calls = [line.split("/")[-1] for line in programs.called]
    order = [
        "systemd-sysusers --root= turku-api.conf",
        "turku-api migrate --verbosity 0",
        "turku-api tls create turku.example.com",
        "systemctl enable --now turku-api.service",
    ]
    assert [line for line in calls if line in order] == order
    file = host.path(service_user.FILE)
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert file.stat().st_gid == GID
    assert service_user.parse(file.read_text(), shown=file) == found(host).variables()
    assert told[-1] == PASSWORD
    programs.called.clear()
    assert "is set up: all" in set_up(host, found(host))
    assert programs.called == []


def test_the_password_of_the_account_is_in_no_argument_and_no_file(host: Host, programs: Programs) -> None:
    set_up(host, found(host))
    assert [json.loads(each) for each in programs.fed] == [{"name": "admin", "password": PASSWORD}]
    assert not any(PASSWORD in line for line in programs.called)
    assert [path for path in host.root.rglob("*") if path.is_file() and PASSWORD.encode() in path.read_bytes()] == []


def test_a_key_that_a_killed_run_left_is_made_anew(host: Host, programs: Programs) -> None:
    certificate, key = answers.own_certificate()
    host.path(key).parent.mkdir(parents=True)
    host.path(key).touch()
    set_up(host, found(host))
    calls = [line for line in programs.called if "runuser" in line or "tls create" in line]
    assert calls[0] == f"runuser -u turku-api -- rm -f {key}"
    assert "tls create" in calls[1]
    assert host.path(certificate).exists()


@pytest.mark.parametrize("position", [0, 1], ids=["the certificate", "the key"])
def test_a_key_that_machines_may_know_is_not_replaced(position: int, host: Host, programs: Programs) -> None:
    set_up(host, found(host))
    host.path(answers.own_certificate()[position]).unlink()
    programs.called.clear()
    with pytest.raises(ConfigurationError, match="recognize the coordinator by its key"):
        set_up(host, found(host))
    assert programs.called == []


@pytest.mark.parametrize("name", ["db.sqlite3", "secret_key", "hash_key"])
def test_a_lost_database_or_key_is_not_replaced_by_an_empty_one(name: str, host: Host, programs: Programs) -> None:
    set_up(host, found(host))
    host.path(STATE / name).unlink()
    programs.called.clear()
    with pytest.raises(ConfigurationError, match=f"{name} is missing") as caught:
        set_up(host, found(host))
    assert "turku-api recover" in caught.value.hint
    assert programs.called == []


def test_a_changed_setting_restarts_the_service(host: Host, programs: Programs) -> None:
    set_up(host, found(host))
    programs.called.clear()
    set_up(host, found(host, time_zone="Asia/Tokyo"))
    assert programs.called == ["systemctl restart turku-api.service"]


@pytest.mark.parametrize(("seconds", "restarts"), [(-10, True), (10, False)])
def test_a_service_that_started_before_an_upgrade_of_the_program_is_restarted(
    host: Host, programs: Programs, seconds: int, restarts: bool
) -> None:
    set_up(host, found(host))
    programs.called.clear()
    path = Path(turku.__file__)
    programs.started_unix_seconds = max(path.stat().st_ctime, host.path("/etc/turku-api/environment").stat().st_mtime)
    programs.started_unix_seconds += seconds
    set_up(host, found(host))
    assert programs.called == (["systemctl restart turku-api.service"] if restarts else [])


def test_edited_settings_are_not_replaced_and_the_difference_is_named(host: Host) -> None:
    set_up(host, found(host))
    file = host.path(service_user.FILE)
    file.write_text(file.read_text() + "TURKU_WORKERS=8\n")
    earlier = service_user.parse(file.read_text(), shown=file)
    host_setup._refuse_to_change_edited_settings(host, found(host, earlier), earlier)
    changed = found(host, earlier, time_zone="Asia/Tokyo", database="postgresql://u@db/x")
    with pytest.raises(UsageError, match="TURKU_TIME_ZONE=Asia/Tokyo") as caught:
        host_setup._refuse_to_change_edited_settings(host, changed, earlier)
    assert "TURKU_DATABASE_URL=***" in caught.value.message


def test_another_state_directory_is_that_of_the_file(host: Host, programs: Programs) -> None:
    earlier = {**found(host).variables(), "TURKU_STATE_DIR": "/srv/state"}
    first = plan.FirstAccount("admin", lambda: Secret(PASSWORD), lambda _secret: None)
    steps = plan.plan(host, found(host), first, earlier).steps
    [step] = [each for each in steps if isinstance(each, plan.DatabaseStep)]
    assert {path.parent for path in step._files()} == {Path("/srv/state")}


def test_the_join_lines_are_printed_at_the_first_time(host: Host) -> None:
    set_up(host, found(host))
    said: list[str] = []
    host_setup._conclude(host, found(host), said.append)
    assert "turku-storage setup turku-storage-WORD --volume /srv/turku" in said
    assert "turku-agent setup turku-machine-WORD --source etc=/etc" in said
    said.clear()
    host_setup._conclude(host, found(host), said.append)
    assert not any("WORD" in line for line in said)
    assert any("turku-api join-token create storage" in line for line in said)


def test_a_key_that_the_service_cannot_read_is_refused(host: Host, programs: Programs, tmp_path: Path) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    certificate.touch()
    key.touch()
    programs.failing = f"test -r {'/key.pem'}"
    with pytest.raises(ConfigurationError, match="cannot read") as caught:
        set_up(host, found(host, certificate=certificate, key=key))
    assert "chgrp turku-api" in caught.value.hint


def test_teardown_leaves_keys_and_database(host: Host, programs: Programs) -> None:
    set_up(host, found(host))
    teardown.tear_down(plan.PROGRAM, host, lambda _line: None, is_confirmed=True)
    assert host.path(STATE / "db.sqlite3").exists()
    assert host.path(STATE / "hash_key").exists()
    assert not host.path("/etc/turku-api").exists()
    assert "systemctl disable --now turku-api.service" in programs.called


def test_teardown_leaves_the_user_to_whom_the_keys_belong(
    host: Host, programs: Programs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    set_up(host, found(host))
    monkeypatch.setattr(host_setup, "require_root", lambda: None)
    monkeypatch.setattr(host_setup, "Host", lambda: host)
    monkeypatch.setattr(service_user, "read_file", lambda _path: {"TURKU_STATE_DIR": str(host.path(STATE))})
    assert host_setup.tear_down(argparse.Namespace(dry_run=False, yes=True)) == 0
    assert "keep turku-api: the keys in" in capsys.readouterr().out
    assert not any("userdel" in line or "deluser" in line for line in programs.called)


def test_setup_and_teardown_run_without_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    umask = os.umask(0o077)
    try:
        for word in ("setup", "teardown"):
            with pytest.raises(UsageError, match="only root"):
                cli.main([word])
    finally:
        os.umask(umask)


@pytest.mark.django_db
def test_the_first_account_is_created_once_and_its_password_is_checked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import io

    def create(password: str) -> None:
        text = account.description("admin", Secret(password)).decode()
        monkeypatch.setattr("sys.stdin", io.StringIO(text))
        account.create_from_input()

    account.show_whether_there_is_one()
    with pytest.raises(SystemExit, match="password"):
        create("admin")
    create(PASSWORD)
    create("another-" + PASSWORD)
    [user] = get_user_model()._default_manager.all()
    assert user.get_username() == "admin"
    assert user.check_password(PASSWORD)
    account.show_whether_there_is_one()
    assert capsys.readouterr().out.split() == ["no", "yes"]
