"""N4: another user of the storage reads no state, no secret and no process of a session, and leads it nowhere."""

import fcntl
import json
import os
import secrets
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support.ordered_storage import OrderedStorage, order, ordered_storage
from tests.support.processes import command_lines
from tests.support.sshd import free_port
from tests.support.storage_host import AgentSide

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="acts as another user")]
SOMEBODY = 65534
AS_SOMEBODY = ["setpriv", f"--reuid={SOMEBODY}", f"--regid={SOMEBODY}", "--clear-groups"]


@pytest.fixture(autouse=True)
def _open_umask() -> Iterator[None]:
    """An umask that closes nothing: what is closed, we closed."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture
def storage(shared: Path) -> Iterator[OrderedStorage]:
    """A storage, registered, with a machine whose one source is due. Its directories lie where others can go."""
    source = shared / "source"
    source.mkdir()
    (source / "secret").write_text("of the machine's alone")
    (source / "secret").chmod(0o644)
    with ordered_storage(shared / "site", {"etc": source}) as running:
        running.host.directory.chmod(0o755)
        running.host.volume.chmod(0o755)
        running.host.write_configuration(
            authorized_keys_command=f"{running.host.keys['authorized_keys_command']} --debug"
        )
        running.admit()
        due = {"uuid": running.uuid, "scheduled_sources": {"etc": order()}}
        running.api.answers["storage_ping_checkin"] = {"machine": due}
        yield running


def seen_by_somebody(*paths: Path) -> str:
    """Return everything that another user can find out about trees: names and contents."""
    script = 'for tree; do find "$tree" -print; find "$tree" -type f -exec cat {} +; done'
    done = subprocess.run([*AS_SOMEBODY, "sh", "-c", script, "sh", *paths], capture_output=True, text=True, check=False)
    return done.stdout


def as_somebody(*words: str | Path) -> None:
    subprocess.run([*AS_SOMEBODY, *words], check=True)


def storage_secret(storage: OrderedStorage) -> str:
    kept = json.loads((storage.host.var_dir / "config.d" / "10-storage.json").read_text())
    secret: str = kept["secret"]
    return secret


@contextmanager
def checkin(storage: OrderedStorage) -> Iterator[tuple[AgentSide, int]]:
    """A session, its request sent, and the port of its tunnel."""
    port = free_port()
    credentials = {"username": storage.daemon.username, "password": storage.daemon.password}
    request = {"verbose": True, "action": "checkin", "port": port, "sources": {"etc": credentials}}
    with storage.host.session(storage.key, "-R", f"{port}:127.0.0.1:{storage.daemon.port}", request=request) as side:
        yield side, port


@contextmanager
def slow_backup(storage: OrderedStorage) -> Iterator[tuple[AgentSide, int]]:
    """A session whose rsync runs for some seconds, and runs now."""
    (storage.host.directory.parents[1] / "source" / "big").write_bytes(secrets.token_bytes(2 * 1024 * 1024))
    storage.host.write_configuration(rsync_command=["rsync", "--bwlimit=500"])
    with checkin(storage) as (side, port):
        side.wait_for("backup begins")
        deadline = time.monotonic() + 60
        while not any(storage.daemon.username.encode() in words for words in command_lines().values()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield side, port


def test_n4_state_and_backups_are_closed_to_others(storage: OrderedStorage) -> None:
    with checkin(storage) as (side, _port):
        assert side.wait() == 0, side.output
    host = storage.host
    (host.var_dir / "new_secret.json").unlink(missing_ok=True)
    host.run("turku-storage", "authorized-keys", "root", *storage.public_key.split()[:2])
    # A rotation that is under way: its coordinator does not answer.
    host.write_configuration(api_url="http://127.0.0.1:1/v1")
    assert host.run("turku-storage", "rotate-secret", check=False).exit_code == 69
    pending = json.loads((host.var_dir / "new_secret.json").read_text())["secret"]
    assert (storage.machine_dir / "etc.snapshots" / "latest" / "secret").read_text() == "of the machine's alone"
    seen = seen_by_somebody(host.var_dir, host.volume, host.log_path.parent, host.authorized_keys.parent)
    for secret in (storage_secret(storage), pending, "of the machine's alone", storage.public_key.split()[1]):
        assert secret not in seen
    assert storage.uuid in seen, "the volume itself is open here, and the machine's directory in it is not"
    assert "etc.snapshots" not in seen
    # Each by itself: were the directories above opened by an administrator, nothing in them would be.
    for path in (*host.var_dir.rglob("*"), host.var_dir, host.log_path, host.authorized_keys, storage.machine_dir):
        if not path.is_symlink():
            assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_n4_no_secret_is_in_an_argument_list_and_no_environment_is_open(storage: OrderedStorage) -> None:
    known = [storage_secret(storage).encode(), storage.daemon.password.encode()]
    with slow_backup(storage) as (side, _port):
        seen = command_lines()
        marks = (str(storage.host.config_dir).encode(), storage.daemon.username.encode())
        family = [pid for pid, words in seen.items() if any(mark in words for mark in marks)]
        environments = b"".join(Path(f"/proc/{pid}/environ").read_bytes() for pid in family)
        # It is there, where nobody but its own user and root looks.
        assert b"RSYNC_PASSWORD=" + known[1] in environments
        assert not any(secret in words for words in seen.values() for secret in known)
        for pid in family:
            for name in ("environ", "mem", "fd/0"):
                done = subprocess.run(
                    [*AS_SOMEBODY, "head", "-c1", f"/proc/{pid}/{name}"], capture_output=True, check=False
                )
                assert done.returncode != 0
        assert side.wait(60) == 0, side.output
    log = storage.host.log
    assert "DEBUG" in log
    assert not any(secret.decode() in log for secret in known)
    assert not any(secret.decode() in side.output for secret in known)


def test_n4_the_tunnel_gives_nothing_to_who_has_no_password(storage: OrderedStorage, shared: Path) -> None:
    stolen = shared / "stolen"
    stolen.mkdir(mode=0o777)
    with slow_backup(storage) as (side, port):
        for user, password in ((storage.daemon.username, "guess"), ("root", "guess"), ("", "")):
            done = subprocess.run(
                [*AS_SOMEBODY, "rsync", "-a", f"rsync://{user}@127.0.0.1:{port}/etc/", f"{stolen}/"],
                env={**os.environ, "RSYNC_PASSWORD": password},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
            )
            assert done.returncode != 0
        assert side.wait(60) == 0, side.output
    assert list(stolen.iterdir()) == []


def shared_locks(storage: OrderedStorage, shared: Path) -> Path:
    """A lock_dir like /var/lock of old: everybody may make files there."""
    directory = shared / "locks"
    directory.mkdir()
    directory.chmod(0o1777)
    storage.host.write_configuration(lock_dir=str(directory))
    return directory


@pytest.mark.parametrize("kind", ["link", "file", "pipe"])
@pytest.mark.parametrize("program", ["session", "update-config", "rotate-secret"])
def test_n4_a_planted_lock_is_not_followed_waited_for_or_believed(
    storage: OrderedStorage, shared: Path, kind: str, program: str
) -> None:
    locks, victim = shared_locks(storage, shared), shared / "victim"
    lock = locks / f"{f'machine-{storage.uuid}' if program == 'session' else program}.lock"
    if kind == "link":
        as_somebody("ln", "-s", victim, lock)
    else:
        as_somebody("mkfifo" if kind == "pipe" else "touch", lock)
    # A pipe has no one at its other end: who opens it as one opens a file waits for ever.
    descriptor = os.open(lock, os.O_RDWR) if kind == "file" else None
    begin = time.monotonic()
    try:
        if descriptor is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if program == "session":
            with checkin(storage) as (side, _port):
                exit_code, said = side.wait(), side.output
        else:
            done = storage.host.run("turku-storage", program, check=False)
            exit_code, said = done.exit_code, "\n".join(done.last_lines)
    finally:
        if descriptor is not None:
            os.close(descriptor)
    # Not 75, which a timer takes for "all is well, one is running".
    assert exit_code == 73, said
    assert str(lock) in said
    assert time.monotonic() - begin < 20
    assert not victim.exists()
    assert not storage.machine_dir.exists()


@pytest.mark.parametrize("kind", ["directory", "link"])
def test_n4_a_directory_planted_on_a_shared_volume_gets_no_backup(
    storage: OrderedStorage, shared: Path, kind: str
) -> None:
    storage.host.volume.chmod(0o1777)
    trap = shared / "trap"
    trap.mkdir()
    if kind == "directory":
        as_somebody("mkdir", "-m", "0777", storage.machine_dir)
    else:
        as_somebody("ln", "-s", trap, storage.machine_dir)
    with checkin(storage) as (side, _port):
        assert side.wait() == 74
        assert ("belongs to another user" if kind == "directory" else "is not a directory") in side.output
    assert list(trap.iterdir()) == []
    assert list(storage.machine_dir.iterdir()) == []
    assert storage.reports["etc"]["success"] is False


@pytest.mark.parametrize("name", ["machines_asked.json", "admitted_keys", "new_secret.json"])
def test_n4_state_files_are_replaced_and_not_followed(storage: OrderedStorage, shared: Path, name: str) -> None:
    victim = shared / "victim"
    victim.write_text("victim")
    planted = storage.host.var_dir / name
    planted.unlink(missing_ok=True)
    planted.symlink_to(victim)
    storage.host.update_config(check=False)
    storage.host.run("turku-storage", "rotate-secret", check=False)
    assert victim.read_text() == "victim"
