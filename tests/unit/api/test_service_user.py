"""The user and the environment file of the coordinator's commands."""

import os
import pwd
from pathlib import Path

import pytest

from turku.api.configuration import service_user
from turku.api.project import checks
from turku.errors import ConfigurationError

SHOWN = Path("/etc/turku-api/environment")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", {}),
        ("# a comment\n; another\n\n  TURKU_X=1  \n", {"TURKU_X": "1"}),
        ("TURKU_X=a, b\n", {"TURKU_X": "a, b"}),
        ('TURKU_X=\'a b\' \nTURKU_Y="c \\" d"\n', {"TURKU_X": "a b", "TURKU_Y": 'c " d'}),
        ("TURKU_X=a\\\nb\n", {"TURKU_X": "ab"}),
        ("TURKU_X=\n", {"TURKU_X": ""}),
        ("TURKU_X=a\\$b#c\n", {"TURKU_X": "a$b#c"}),
    ],
)
def test_an_environment_file_is_read_as_systemd_reads_it(text: str, found: dict[str, str]) -> None:
    assert service_user.parse(text, shown=SHOWN) == found


@pytest.mark.parametrize("value", ["plain", "a b", "it's", 'say "x"', "a$b`c`\\d", "", "#x", "p%40ss=w&x"])
def test_what_is_written_is_read_again(value: str) -> None:
    written = service_user.to_text({"TURKU_X": value})
    assert service_user.parse(written, shown=SHOWN) == {"TURKU_X": value}


@pytest.mark.parametrize("line", ["export TURKU_X=1", "TURKU_X", "TURKU_X='a"])
def test_a_malformed_line_is_named(line: str) -> None:
    with pytest.raises(ConfigurationError, match="line 2"):
        service_user.parse(f"TURKU_A=1\n{line}\n", shown=SHOWN)


def test_a_file_that_others_may_change_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "environment"
    path.write_text("TURKU_X=1\n")
    path.chmod(0o666)
    with pytest.raises(ConfigurationError, match="others than root may change it"):
        service_user.read_file(path)
    assert service_user.read_file(tmp_path / "missing") == {}


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """An account of the service, and the record of how this process became it."""
    nobody = pwd.getpwnam("nobody")
    became: dict[str, object] = {}
    monkeypatch.setattr(pwd, "getpwnam", lambda _name: nobody)
    monkeypatch.setattr(os, "geteuid", lambda: became.get("uid", 0))
    monkeypatch.setattr(os, "initgroups", lambda name, gid: became.update(groups=(name, gid)))
    monkeypatch.setattr(os, "setresgid", lambda *gids: became.update(gid=gids[0]))
    monkeypatch.setattr(os, "setresuid", lambda *uids: became.update(uid=uids[0]))
    return became


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "environment"
    path.write_text("TURKU_TIME_ZONE=Europe/Helsinki\nPGSSLROOTCERT=/etc/ssl/ca.pem\n")
    monkeypatch.setattr(service_user, "read_file", lambda each: service_user.parse(each.read_text(), shown=each))
    return path


def test_root_becomes_the_user_with_the_files_variables(account: dict[str, object], file: Path) -> None:
    variables = {"HOME": "/root", "PATH": "/bin"}
    service_user.become(variables, file=file)
    nobody = pwd.getpwnam("nobody")
    assert account == {"groups": ("turku-api", nobody.pw_gid), "gid": nobody.pw_gid, "uid": nobody.pw_uid}
    assert variables["TURKU_TIME_ZONE"] == "Europe/Helsinki"
    assert variables["PGSSLROOTCERT"] == "/etc/ssl/ca.pem"
    assert variables["HOME"] == nobody.pw_dir
    assert variables["PATH"] == "/bin"


def test_a_variable_that_is_set_leaves_user_and_environment_as_they_are(account: dict[str, object], file: Path) -> None:
    variables = {"TURKU_STATE_DIR": "/srv/x"}
    service_user.become(variables, file=file)
    assert (account, variables) == ({}, {"TURKU_STATE_DIR": "/srv/x"})


def test_another_user_gets_no_variables(account: dict[str, object], file: Path) -> None:
    account["uid"] = 12345
    variables: dict[str, str] = {}
    service_user.become(variables, file=file)
    assert variables == {}


def test_the_services_user_reads_the_file_as_well(account: dict[str, object], file: Path) -> None:
    account["uid"] = pwd.getpwnam("nobody").pw_uid
    variables: dict[str, str] = {}
    service_user.become(variables, file=file)
    assert variables["TURKU_TIME_ZONE"] == "Europe/Helsinki"


def test_without_the_user_nothing_is_done(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_name: str) -> None:
        raise KeyError

    monkeypatch.setattr(pwd, "getpwnam", missing)
    variables: dict[str, str] = {}
    service_user.become(variables, file=file)
    assert variables == {}


def test_an_environment_file_with_a_password_that_others_may_read_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "environment"
    monkeypatch.setattr(service_user, "FILE", path)
    assert checks.exposed_secrets_check() == []
    path.write_text("TURKU_DATABASE_URL=postgresql://turku:x@db/turku\n")
    path.chmod(0o644)
    [warning] = checks.exposed_secrets_check()
    assert warning.id == "turku.W003"
    assert "chmod 0640" in warning.msg
    path.chmod(0o640)
    assert checks.exposed_secrets_check() == []
    path.write_text("TURKU_TIME_ZONE=UTC\n")
    path.chmod(0o644)
    assert checks.exposed_secrets_check() == []
