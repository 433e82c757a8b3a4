"""S2: a storage reads the sources that are due now, and nothing else of the machine, and only as long as it was let
in."""

import itertools
import os
import socket
import subprocess
from pathlib import Path

import pytest
from tests.attacks.conftest import StartPing
from tests.integration.agent.conftest import Machine, wait_for
from tests.support.hostile_storage import HostileStorage, identity, roots_of_rsyncd
from tests.support.trees import differences
from tests.support.v1_server import V1Api

PATHS_OUT = [
    "../outside/secret",
    "absolute/secret",
    "relative/secret",
    "below/up/outside/secret",
    "below/../../outside/secret",
    "./absolute/./secret",
    "/../../../../../../../../etc/passwd",
    "top/etc/passwd",
    "absolute/",
    "*/secret",
]
OPTIONS_THAT_FOLLOW: list[tuple[str, ...]] = [(), ("--copy-links",), ("--copy-unsafe-links",), ("--copy-dirlinks",)]
OPTIONS_THAT_WRITE = [
    ("--remote-option=--log-file={outside}/log",),
    ("--remote-option=--temp-dir={outside}",),
    ("--remote-option=--partial-dir={outside}", "--partial"),
    ("--remote-option=--backup-dir={outside}", "--backup"),
    ("--remote-option=--write-batch={outside}/batch",),
    ("--remove-source-files",),
    ("--remote-option=--delete",),
]


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    directory = tmp_path / "outside"
    directory.mkdir()
    (directory / "secret").write_text("not yours")
    return directory


@pytest.fixture
def session(
    machine: Machine, api: V1Api, tmp_path: Path, outside: Path, open_session: StartPing, hostile: HostileStorage
) -> subprocess.Popen[str]:
    """Start a run with one source due, of two. Its tree has links that lead out of it."""
    due = tmp_path / "due"
    (due / "below").mkdir(parents=True)
    (due / "file").write_text("yours")
    (due / "absolute").symlink_to(outside)
    (due / "relative").symlink_to("../outside")
    (due / "top").symlink_to("/")
    (due / "below" / "up").symlink_to("../..")
    machine.source("due", due)
    machine.source("later", outside)
    api.due = {"due"}
    process = open_session()
    hostile.request()
    return process


@pytest.mark.usefixtures("session")
def test_s2_a_source_that_is_due_can_be_read(hostile: HostileStorage, tmp_path: Path) -> None:
    # Without this the attacks below would prove nothing.
    read = hostile.rsync("-a", "rsync://{}/due/", f"{tmp_path / 'stolen'}/")
    assert read.returncode == 0, read.stderr
    assert (tmp_path / "stolen/file").read_text() == "yours"


@pytest.mark.usefixtures("session")
def test_s2_no_other_module_is_there(hostile: HostileStorage, tmp_path: Path) -> None:
    assert set(hostile.request()["sources"]) == {"due"}
    for module in ("later", "turku-restore", "global", "..", "/", "DUE", "due/../later", "%HOME%"):
        hostile.rsync("-a", f"rsync://{{}}/{module}/", f"{tmp_path / 'stolen'}/")
        assert not list((tmp_path / "stolen").rglob("secret")), module


@pytest.mark.usefixtures("session")
def test_s2_the_modules_are_not_listed(hostile: HostileStorage) -> None:
    assert hostile.rsync("rsync://{}/").stdout == ""


@pytest.mark.usefixtures("session")
def test_s2_no_path_leads_out_of_a_source(hostile: HostileStorage, tmp_path: Path) -> None:
    for path, options in itertools.product(PATHS_OUT, OPTIONS_THAT_FOLLOW):
        hostile.rsync("-a", *options, f"rsync://{{}}/due/{path}", f"{tmp_path / 'stolen'}/")
        for stolen in (tmp_path / "stolen").rglob("*"):
            assert stolen.is_symlink() or stolen.name not in ("secret", "passwd"), (path, options)
    # All along the daemon gave what may be read.
    assert hostile.rsync("-a", "rsync://{}/due/file", f"{tmp_path / 'stolen'}/").returncode == 0


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="the daemon can be locked in by root only")
def test_s2_the_daemon_sees_nothing_but_the_source(
    session: subprocess.Popen[str], hostile: HostileStorage, machine: Machine, tmp_path: Path
) -> None:
    # Whatever a fault in rsync's own care for paths would let through.
    with (tmp_path / "due/big").open("wb") as big:
        big.write(os.urandom(4_000_000))
    request = hostile.request()
    login = request["sources"]["due"]
    transfer = subprocess.Popen(
        [
            "rsync",
            "-a",
            "--bwlimit=10",
            f"rsync://{login['username']}@127.0.0.1:{request['port']}/due/",
            tmp_path / "t",
        ],
        env={**os.environ, "RSYNC_PASSWORD": login["password"]},
        stderr=subprocess.DEVNULL,
    )
    try:
        assert wait_for(lambda: roots_of_rsyncd(session.pid)) == {identity(tmp_path / "due")}
    finally:
        transfer.kill()
        transfer.wait()


@pytest.mark.usefixtures("session")
def test_s2_nothing_can_be_written(hostile: HostileStorage, tmp_path: Path, outside: Path) -> None:
    before = tmp_path / "before"
    subprocess.run(["cp", "-a", tmp_path / "due", before], check=True)
    loot = tmp_path / "loot"
    loot.mkdir()
    (loot / "file").write_text("overwritten")
    (loot / "new").write_text("planted")
    for target in ("", "below/", "absolute/", "../outside/"):
        written = hostile.rsync("-a", f"{loot}/", f"rsync://{{}}/due/{target}")
        assert written.returncode != 0
    assert hostile.rsync("-a", "--delete", f"{tmp_path / 'hostile'}/", "rsync://{}/due/").returncode != 0
    for options in OPTIONS_THAT_WRITE:
        words = [word.format(outside=outside) for word in options]
        hostile.rsync("-a", *words, "rsync://{}/due/", f"{tmp_path / 'stolen'}/")
    assert differences(before, tmp_path / "due") == []
    assert [path.name for path in outside.iterdir()] == ["secret"]


def test_s2_the_passwords_end_with_the_session(
    session: subprocess.Popen[str], machine: Machine, hostile: HostileStorage, tmp_path: Path, open_session: StartPing
) -> None:
    first = hostile.request()
    login = first["sources"]["due"]
    hostile.release()
    assert session.wait(timeout=30) == 0
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.2", first["port"])) != 0, "rsyncd still answers"
    assert not list((machine.var_dir / "run").iterdir())
    hostile.forget()
    open_session()
    second = hostile.request()
    assert second["sources"]["due"]["username"] != login["username"]
    assert second["sources"]["due"]["password"] != login["password"]
    used_again = hostile.rsync("-a", "rsync://{}/due/", f"{tmp_path / 'stolen'}/", login=login)
    assert "auth failed" in used_again.stderr
    assert not (tmp_path / "stolen").exists()
