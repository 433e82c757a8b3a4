"""S3: a storage writes to a machine in a restore that the machine itself opened, and only below the path it chose."""

import os
import subprocess
from pathlib import Path

import pytest
from tests.attacks.conftest import Device, StartPing
from tests.integration.agent.conftest import Machine, wait_for
from tests.integration.agent.test_restore import SAMPLE
from tests.support.hostile_storage import HostileStorage, identity, loot, roots_of_rsyncd
from tests.support.trees import differences

UNPRIVILEGED = 65534


def credentials(process: subprocess.Popen[str], hostile: HostileStorage) -> dict[str, str]:
    """Return the credentials that the operator reads at the machine and uses at the storage, which is the
    attacker's."""
    hostile.request()
    assert process.stdout is not None
    text = ""
    while (sample := SAMPLE.search(text)) is None:
        line = process.stdout.readline()
        assert line, text
        text += line
    return {"username": sample["url"].split("//")[1].split("@")[0], "password": sample["password"]}


def attack(hostile: HostileStorage, login: dict[str, str], tmp_path: Path, victim: Path) -> None:
    tree = loot(tmp_path, victim)
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "authorized_keys").write_text("planted")
    (plain / "key").write_text("planted")
    assert hostile.rsync("-a", f"{tree}/", "rsync://{}/turku-restore/", login=login).returncode == 0
    module = "rsync://{}/turku-restore"
    for options, target in (
        ((), "/../victim/"),
        ((), "/absolute/"),
        ((), "/relative/"),
        ((), f"/{victim}/"),
        (("--keep-dirlinks",), "/absolute/"),
        (("--keep-dirlinks", "--relative"), "/relative/../victim/"),
        (("--inplace",), "/"),
        (("--remote-option=--inplace", "--append"), "/"),
        (("--backup", f"--backup-dir={victim}"), "/"),
        (("--backup", "--backup-dir=../victim"), "/"),
        ((f"--temp-dir={victim}",), "/"),
        ((f"--remote-option=--partial-dir={victim}", "--partial", "--delay-updates"), "/"),
        ((f"--remote-option=--log-file={victim}/log",), "/"),
        (("--write-devices",), "/"),
        (("--delete", "--delete-excluded"), "/relative/"),
    ):
        hostile.rsync("-a", "--ignore-times", *options, f"{plain}/", f"{module}{target}", login=login)


def test_s3_a_restore_writes_below_its_path_only(
    machine: Machine, hostile: HostileStorage, open_session: StartPing, victim: Path, tmp_path: Path
) -> None:
    process = open_session("--restore")
    attack(hostile, credentials(process, hostile), tmp_path, victim)
    assert (tmp_path / "restored/file").read_text() == "planted", "the attack itself failed"
    assert differences(tmp_path / "before", victim) == []
    assert sorted(path.name for path in tmp_path.iterdir() if path.name in ("log", "planted")) == []


@pytest.mark.root
@pytest.mark.parametrize("prefix", [[], ["setpriv", "--bounding-set=-sys_admin"]], ids=["mount", "no mount"])
def test_s3_a_restore_writes_no_device(
    machine: Machine,
    hostile: HostileStorage,
    open_session: StartPing,
    victim: Path,
    tmp_path: Path,
    device: Device,
    prefix: list[str],
) -> None:
    machine.prefix = prefix
    login = credentials(open_session("--restore"), hostile)
    first, second = tmp_path / "first", tmp_path / "second"
    (first / "m").mkdir(parents=True)
    os.mknod(first / "m" / "z", 0o060644, device.number)
    for name in ("a/l", "a/m", "m"):
        (second / name).mkdir(parents=True)
    (second / "a" / "l" / "big").write_bytes(os.urandom(1_500_000))
    (second / "a" / "m" / "z").write_bytes(b"PLANTED\n" * 10_000)
    (second / "m" / "z").write_text("in its place")
    hostile.rsync("-a", f"{first}/", "rsync://{}/turku-restore/", login=login)
    # rsync asks for a/m/z, then moves the device there before it receives the file.
    options = ("-W", "--no-inc-recursive", "--inplace", "--backup", "--backup-dir=a", "--bwlimit=1000")
    hostile.rsync("-a", *options, f"{second}/", "rsync://{}/turku-restore/", login=login)
    assert device.is_untouched()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="rsyncd can be locked in by root only")
def test_s3_rsyncd_sees_nothing_but_that_path(
    machine: Machine, hostile: HostileStorage, open_session: StartPing, victim: Path, tmp_path: Path
) -> None:
    # Whatever a fault in rsync's own care for paths would let through.
    process = open_session("--restore")
    login = credentials(process, hostile)
    big = tmp_path / "big"
    big.write_bytes(os.urandom(4_000_000))
    transfer = subprocess.Popen(
        [
            "rsync",
            "--bwlimit=10",
            big,
            f"rsync://{login['username']}@127.0.0.1:{hostile.request()['port']}/turku-restore/",
        ],
        env={**os.environ, "RSYNC_PASSWORD": login["password"]},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        roots = wait_for(lambda: roots_of_rsyncd(process.pid) or transfer.poll() is not None)
        assert roots == {identity(tmp_path / "restored")}, transfer.communicate()[1]
    finally:
        transfer.kill()
        transfer.wait()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="starts the agent as another user")
def test_s3_nor_does_the_restore_of_an_agent_that_is_not_root(
    machine: Machine, hostile: HostileStorage, open_session: StartPing, victim: Path, tmp_path: Path
) -> None:
    # The state and the directory that it opens are this user's. No chroot locks rsyncd in.
    machine.source("etc", victim)
    machine.register()
    restored = tmp_path / "restored"
    restored.mkdir()
    for path in (machine.var_dir, *machine.var_dir.rglob("*"), restored):
        os.chown(path, UNPRIVILEGED, UNPRIVILEGED)
    machine.prefix = unprivileged("+dac_read_search")
    process = open_session("--restore")
    attack(hostile, credentials(process, hostile), tmp_path, victim)
    assert (restored / "file").read_text() == "planted", "the attack itself failed"
    assert differences(tmp_path / "before", victim) == []


def unprivileged(capabilities: str) -> list[str]:
    """The words before a command that is to run as a user with these capabilities and no other."""
    return [
        *("setpriv", f"--reuid={UNPRIVILEGED}", f"--regid={UNPRIVILEGED}", "--clear-groups", "--no-new-privs"),
        *(f"--inh-caps={capabilities}", f"--ambient-caps={capabilities}", f"--bounding-set=-all,{capabilities}"),
    ]


def test_s3_a_storage_that_was_let_in_for_a_backup_writes_nothing(
    machine: Machine, hostile: HostileStorage, open_session: StartPing, victim: Path, tmp_path: Path
) -> None:
    process = open_session()
    request = hostile.request()
    assert request["action"] == "checkin"
    for module in ("etc", "turku-restore"):
        written = hostile.rsync("-a", f"{victim}/", f"rsync://{{}}/{module}/")
        assert written.returncode != 0
    assert not (tmp_path / "restored").exists()
    hostile.release()
    assert process.wait(timeout=30) == 0


def test_s3_the_end_of_a_restore_is_the_end_of_writing(
    machine: Machine, hostile: HostileStorage, open_session: StartPing, victim: Path, tmp_path: Path
) -> None:
    process = open_session("--restore", stdin=subprocess.PIPE)
    login = credentials(process, hostile)
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(timeout=30) == 0
    wait_for(lambda: machine.processes() == [])
    late = hostile.rsync("-a", f"{victim}/", "rsync://{}/turku-restore/", login=login)
    assert late.returncode != 0
    assert list((tmp_path / "restored").iterdir()) == []
