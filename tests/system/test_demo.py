"""`turku demo`, as a newcomer types it."""

import os
import re
import signal
import time
import urllib.request
from pathlib import Path

import pytest

from turku import __version__
from turku.core import command
from turku.demo import programs

TURKU = programs.DIRECTORY / "turku"


def _left_behind(directory: Path) -> list[str]:
    """Command lines of processes that have to do with the directory."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            place = os.readlink(entry / "cwd")
        except OSError:
            continue
        if entry.name.isdigit() and int(entry.name) != os.getpid() and (str(directory) in line + place):
            found.append(line)
    return found


def _run(path: Path | str, temporary: Path, *arguments: str) -> command.CompletedProgram:
    return command.run(
        [TURKU, "demo", path, *arguments],
        timeout_seconds=120,
        extra_environment={"TMPDIR": str(temporary)},
        check=False,
    )


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    (tmp_path / "tmp").mkdir()
    return tmp_path / "tmp"


def test_the_demo_backs_up_twice_restores_and_leaves_nothing(files: Path, temporary: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in files.rglob("*")}
    completed = _run(files, temporary)
    text = completed.stdout.decode()
    assert completed.exit_code == 0, text + "\n".join(completed.last_lines)
    assert "\x1b" not in text
    assert re.search(r"^It runs rsync \d+\.\d+\.\d+, OpenSSH\S+.*\.$", text, re.MULTILINE)
    assert re.findall(r"^\d+\. (\w+)", text, re.MULTILINE) == [
        *("Copy", "Start", "Start", "Register", "Register", "Back", "Change", "Back", "Restore")
    ]
    assert len(set(re.findall(r"snapshot (tree_\S+)", text))) == 2
    assert "identical" in text
    assert "Success" in text
    assert {path: path.stat().st_mtime_ns for path in files.rglob("*")} == before
    assert list(temporary.iterdir()) == []
    assert _left_behind(temporary) == []


def test_kept_it_answers_on_the_admin_site_until_ctrl_c(files: Path, temporary: Path) -> None:
    lines: list[str] = []
    with command.start(
        [TURKU, "demo", files, "--keep"], on_line=lines.append, extra_environment={"TMPDIR": str(temporary)}
    ) as demo:
        deadline = time.monotonic() + 120
        while not any("Ctrl-C" in line for line in lines):
            assert demo.poll() is None, "\n".join(lines)
            assert time.monotonic() < deadline, "\n".join(lines)
            time.sleep(0.05)
        [directory] = temporary.iterdir()
        assert directory.stat().st_mode & 0o777 == 0o700
        text = "\n".join(lines)
        for label in ("address", "user name", "password"):
            assert re.search(rf"^   {label} +\S+$", text, re.MULTILINE)
        address = re.search(r"http://\S+/admin/", text)
        assert address
        with urllib.request.urlopen(address[0], timeout=10) as page:
            assert b"Log in" in page.read()
        for words, shown in (
            ("turku-storage retention --dry-run", "\tkeep\t"),
            ("turku-api health --verbose", "OK: 1 "),
        ):
            [shell_command] = [line for line in lines if words in line]
            assert shown in command.run(["sh", "-c", shell_command], timeout_seconds=60).stdout.decode()
        os.kill(demo.pid, signal.SIGINT)
        assert demo.wait(30) == 0
    assert list(temporary.iterdir()) == []
    assert _left_behind(temporary) == []


@pytest.mark.parametrize(("signal_number", "exit_code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_in_the_middle_of_a_backup_ends_everything(
    files: Path, temporary: Path, signal_number: signal.Signals, exit_code: int
) -> None:
    lines: list[str] = []
    with command.start(
        [TURKU, "demo", files], on_line=lines.append, extra_environment={"TMPDIR": str(temporary)}
    ) as demo:
        deadline = time.monotonic() + 60
        while not any("turku-storage-ping" in line for line in _left_behind(temporary)):
            assert demo.poll() is None, "\n".join(lines)
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(demo.pid, signal_number)
        assert demo.wait(30) == exit_code
    assert "Traceback" not in "\n".join(lines)
    assert list(temporary.iterdir()) == []
    assert _left_behind(temporary) == []


def test_a_path_that_cannot_be_backed_up_is_named(temporary: Path) -> None:
    completed = _run("/nowhere/at/all", temporary)
    assert completed.exit_code == 64
    assert "/nowhere/at/all is not a directory" in "\n".join(completed.last_lines)
    assert list(temporary.iterdir()) == []


def test_missing_programs_are_named_with_their_debian_packages(temporary: Path) -> None:
    completed = command.run(
        [TURKU, "demo", "/etc"],
        timeout_seconds=30,
        extra_environment={"TMPDIR": str(temporary), "PATH": str(temporary)},
        check=False,
    )
    assert completed.exit_code == 70
    text = "\n".join(completed.last_lines)
    assert "not installed: rsync, ssh, ssh-keygen" in text
    assert "openssh-client rsync" in text


def test_an_rsync_that_a_storage_would_refuse_is_named_first(temporary: Path) -> None:
    old = temporary / "rsync"
    old.write_text("#!/bin/sh\necho 'rsync  version 3.2.7  protocol version 32'\n")
    old.chmod(0o755)
    completed = command.run(
        [TURKU, "demo", "/etc"],
        timeout_seconds=30,
        extra_environment={"TMPDIR": str(temporary), "PATH": f"{temporary}:{os.environ['PATH']}"},
        check=False,
    )
    assert completed.exit_code == 70
    text = "\n".join(completed.last_lines)
    assert "rsync 3.2.7 is installed: a storage refuses one older than 3.5.0" in text
    assert "apt-get install rsync" in text
    assert list(temporary.iterdir()) == [old]


def test_version_and_help_are_said_at_once() -> None:
    assert command.run([TURKU, "--version"], timeout_seconds=30).stdout.decode() == f"turku {__version__}\n"
    text = command.run([TURKU, "--help"], timeout_seconds=30).stdout.decode()
    for program in ("demo", "turku-agent", "turku-storage", "turku-api"):
        assert program in text
    assert "--keep" in command.run([TURKU, "demo", "--help"], timeout_seconds=30).stdout.decode()


_OTHER_USER = "postgres"


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="changes to another user")
def test_the_demo_needs_no_root(files: Path, temporary: Path) -> None:
    """As a user with a login shell who owns nothing but a temporary directory."""
    # env stands between: what setpriv starts itself still has root's capabilities while it is being started.
    as_user: list[str | Path] = ["setpriv", f"--reuid={_OTHER_USER}", f"--regid={_OTHER_USER}", "--init-groups", "env"]
    if command.run([*as_user, TURKU, "--version"], timeout_seconds=30, check=False).exit_code != 0:
        pytest.skip(f"{programs.DIRECTORY} is closed to the user {_OTHER_USER}")
    for directory in (*temporary.parents, temporary):
        if directory.is_relative_to("/tmp") and directory != Path("/tmp"):
            directory.chmod(0o755)
    temporary.chmod(0o777)
    completed = command.run(
        [*as_user, TURKU, "demo", files],
        timeout_seconds=120,
        extra_environment={"TMPDIR": str(temporary), "HOME": str(temporary), "USER": _OTHER_USER},
        check=False,
    )
    assert completed.exit_code == 0, completed.stdout.decode() + "\n".join(completed.last_lines)
    assert list(temporary.iterdir()) == []
    assert _left_behind(temporary) == []
