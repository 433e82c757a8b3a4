"""The shell of the user that machines log in as, run as sshd runs it."""

import os
import pwd
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.support.backed_up_machine import storage_configuration

from turku.errors import CommandFailed
from turku.storage.commands.protection import host
from turku.storage.commands.protection.fact import Verdict
from turku.storage.registration import login_shell

USER = pwd.getpwuid(os.geteuid()).pw_name


def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Let this user's login shell be a script."""
    path = tmp_path / "shell"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    account = SimpleNamespace(pw_uid=os.geteuid(), pw_dir=str(tmp_path), pw_shell=str(path))
    monkeypatch.setattr(pwd, "getpwnam", lambda _name: account)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('exec /bin/sh "$@"', ""),
        ('exec bash "$@"', ""),
        ('echo Welcome; exec /bin/sh "$@"', "prints 'Welcome' before it runs"),
        ('printf Welcome; exec /bin/sh "$@"', "prints 'Welcome' before it runs"),
        ('/bin/sh "$@"; echo Bye', "prints 'Bye' before it runs"),
        ("echo 'This account is currently not available.'; exit 1", "does not run what it is told to (exit code 1"),
        ('echo to stderr >&2; exec /bin/sh "$@"', ""),
        ('test -z "$SSH_CONNECTION" || echo ssh; exec /bin/sh "$@"', "prints 'ssh'"),
        ('test "$1" = -c || echo interactive; exec /bin/sh "$@"', ""),
    ],
)
def test_effects_of_a_login_shell_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, found: str
) -> None:
    shell(tmp_path, monkeypatch, text)
    said = login_shell.check(USER)
    assert found in said
    assert bool(said) is bool(found)


def test_bash_reads_its_start_up_file_as_under_sshd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Debian's bash reads it where sshd started it, though nobody sits there.
    (tmp_path / ".bashrc").write_text("echo from the start-up file\n")
    account = SimpleNamespace(pw_uid=os.geteuid(), pw_dir=str(tmp_path), pw_shell="/bin/bash")
    monkeypatch.setattr(pwd, "getpwnam", lambda _name: account)
    assert "from the start-up file" in login_shell.check(USER)


def test_a_user_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CommandFailed, match="there is no user turku-nobody-has-this"):
        login_shell.check("turku-nobody-has-this")


def test_check_calls_it_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shell(tmp_path, monkeypatch, 'echo Welcome; exec /bin/sh "$@"')
    configuration = storage_configuration(tmp_path / "storage", ssh_ping_user=USER)
    [fact] = [fact for fact in host.facts(configuration) if fact.subject == "login shell"]
    assert fact.verdict is Verdict.FAIL
    assert "'Welcome'" in fact.text
