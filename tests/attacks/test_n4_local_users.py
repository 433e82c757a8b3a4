"""N4: another user of the machine reads no state, no secret and no process of the agent, and leads it nowhere."""

import fcntl
import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.attacks.conftest import StartPing
from tests.integration.agent.conftest import Machine
from tests.support.hostile_storage import HostileStorage
from tests.support.sshd import Sshd
from tests.support.v1_server import V1Api

from turku.agent.config import loading
from turku.agent.setup import state_owner
from turku.agent.state import var_dir
from turku.core.setup.host import Host

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="acts as another user")]
SOMEBODY = 65534
AS_SOMEBODY = ["setpriv", f"--reuid={SOMEBODY}", f"--regid={SOMEBODY}", "--clear-groups"]


@pytest.fixture
def machine(machine: Machine, shared: Path, api: V1Api, sshd: Sshd) -> Machine:
    """A machine whose state lies where others can go, made under an umask that closes nothing."""
    (shared / "machine").mkdir()
    open_machine = Machine(shared / "machine", api, sshd)
    tree = shared / "src"
    tree.mkdir()
    open_machine.source("etc", tree)
    return open_machine


@pytest.fixture(autouse=True)
def _open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def seen_by_somebody(path: Path) -> str:
    """Return everything that another user can find out about a tree: names and contents."""
    script = 'find "$0" -print; find "$0" -type f -exec cat {} +'
    done = subprocess.run([*AS_SOMEBODY, "sh", "-c", script, path], capture_output=True, text=True, check=False)
    return done.stdout


def secrets(machine: Machine, hostile: HostileStorage) -> list[str]:
    identity = json.loads((machine.var_dir / "config.d/10-machine_uuid.json").read_text())
    one_time = [login["password"] for login in hostile.request()["sources"].values()]
    private_key = (machine.var_dir / "ssh_key").read_text().splitlines()[2]
    return [identity["machine_secret"], *one_time, private_key]


def test_n4_state_and_runtime_files_are_closed_to_others(
    machine: Machine, hostile: HostileStorage, open_session: StartPing
) -> None:
    process = open_session()
    known = secrets(machine, hostile)
    everything = b"".join(path.read_bytes() for path in machine.var_dir.rglob("*") if path.is_file()).decode()
    assert all(secret in everything for secret in known), "the secrets are not where this test looks for them"
    seen = seen_by_somebody(machine.var_dir)
    assert not any(secret in seen for secret in known)
    assert "run" not in seen
    # Each by itself: were var_dir opened by an administrator, nothing in it would be.
    for path in machine.var_dir.rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        if path.is_dir():
            assert mode == 0o700, path
        elif path.suffix != ".pub" and path.name != "connections.lock":
            assert mode == 0o600, path
    hostile.release()
    assert process.wait(timeout=30) == 0


def test_n4_no_secret_is_in_any_process_s_arguments_or_environment(
    machine: Machine, hostile: HostileStorage, open_session: StartPing
) -> None:
    process = open_session()
    known = secrets(machine, hostile)
    family = [process.pid]
    for pid in family:
        for task in Path(f"/proc/{pid}/task").iterdir():
            family += [int(child) for child in (task / "children").read_text().split()]
    words = {
        pid: Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes() for pid in family
    }
    assert any(b"--daemon" in text for text in words.values())
    assert any(text.startswith(b"ssh\0") for text in words.values())
    for text in words.values():
        assert not any(secret.encode() in text for secret in known)
    hostile.release()
    assert process.wait(timeout=30) == 0


def test_n4_rsyncd_lets_nobody_in_without_the_password(
    machine: Machine, hostile: HostileStorage, open_session: StartPing, shared: Path
) -> None:
    (shared / "src/file").write_text("mine")
    open_session()
    request = hostile.request()
    user = request["sources"]["etc"]["username"]
    loot = shared / "loot"
    loot.mkdir(mode=0o777)
    for name, password in ((user, "guess"), (user, ""), ("root", "guess"), ("", "")):
        done = subprocess.run(
            [*AS_SOMEBODY, "rsync", "-a", f"rsync://{name}@127.0.0.2:{request['port']}/etc/", f"{loot}/"],
            env={**os.environ, "RSYNC_PASSWORD": password},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode != 0
    assert not list(loot.iterdir())


def planted(shared: Path) -> Path:
    """A lock_dir like /var/lock of old: everybody may make files there."""
    directory = shared / "locks"
    directory.mkdir()
    directory.chmod(0o1777)
    return directory


def as_somebody(*words: str | Path) -> None:
    subprocess.run([*AS_SOMEBODY, *words], check=True)


def test_n4_a_link_planted_in_a_shared_lock_directory_is_not_followed(machine: Machine, shared: Path) -> None:
    victim = shared / "victim"
    machine.register()
    machine.configure(lock_dir=str(planted(shared)))
    as_somebody("ln", "-s", victim, shared / "locks/turku-agent-ping.lock")
    ping = machine.ping()
    assert ping.returncode == 73
    assert "cannot open the lock" in ping.stderr
    assert not victim.exists()


def test_n4_a_lock_that_somebody_holds_is_told_apart_from_another_run(machine: Machine, shared: Path) -> None:
    machine.register()
    lock = planted(shared) / "turku-agent-ping.lock"
    machine.configure(lock_dir=str(lock.parent))
    as_somebody("touch", lock)
    descriptor = os.open(lock, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        ping = machine.ping()
    finally:
        os.close(descriptor)
    # Not 75, which a timer takes for "all is well, one is running".
    assert ping.returncode == 73
    assert "was put there by another user" in ping.stderr


def test_n4_a_pipe_in_the_place_of_a_lock_keeps_nobody_waiting(machine: Machine, shared: Path) -> None:
    machine.register()
    lock = planted(shared) / "turku-agent-ping.lock"
    machine.configure(lock_dir=str(lock.parent))
    as_somebody("mkfifo", lock)
    ping = machine.run("turku-agent-ping", timeout=20)
    assert ping.returncode == 73
    assert "was put there by another user" in ping.stderr


def test_n4_a_service_of_somebody_else_s_is_not_taken_for_our_rsyncd(
    machine: Machine, hostile: HostileStorage, open_session: StartPing, shared: Path
) -> None:
    # The daemon cannot have the port that was drawn. Somebody's program there speaks as rsyncd does.
    wrapper = shared / "rsync-behind-somebody-else"
    wrapper.write_text(
        "#!/bin/sh\n"
        'port=$(sed -n "s/^port = //p" "${3#--config=}")\n'
        f"exec {' '.join(AS_SOMEBODY)} /usr/bin/python3 -c '\n"
        "import socket, sys\n"
        'server = socket.create_server(("127.0.0.2", int(sys.argv[1])))\n'
        "while True:\n"
        "    connection, _ = server.accept()\n"
        '    connection.sendall(b"@RSYNCD: 31.0\\n")\n'
        "    connection.recv(100)\n"
        "    connection.close()\n"
        '\' "$port"\n'
    )
    wrapper.chmod(0o755)
    machine.configure(rsyncd_command=[str(wrapper)])
    process = open_session()
    _stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "another user's program took port" in stderr
    assert list(hostile.directory.iterdir()) == []


def test_n4_nobody_can_connect_to_what_is_left_of_a_session(
    machine: Machine, hostile: HostileStorage, open_session: StartPing
) -> None:
    process = open_session()
    port = hostile.request()["port"]
    hostile.release()
    assert process.wait(timeout=30) == 0
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.2", port)) != 0


def test_what_the_agents_user_configured_runs_nothing_as_root_once_that_user_is_gone(tmp_path: Path) -> None:
    state, place = tmp_path / "var", tmp_path / "etc"
    planted, settings = state / "config.d", place / "config.d"
    for directory in (planted, settings):
        directory.mkdir(parents=True)
    (settings / "a.json").write_text(json.dumps({"api_url": "https://turku.example.com/v1", "var_dir": str(state)}))
    identity = {"machine_uuid": "9bef0a75-5a9b-43f7-a66a-7e8c6d7ad91d", "machine_secret": "x" * 30}
    (planted / "10-machine_uuid.json").write_text(json.dumps(identity))
    evil = json.dumps({"ssh_command": ["/tmp/evil"]})
    (planted / "zz.json").write_text(evil)
    (tmp_path / "later.json").write_text(evil)
    (planted / "zy.json").symlink_to(tmp_path / "later.json")
    (planted / "zx.json").hardlink_to(tmp_path / "later.json")
    for path in (state, planted, planted / "zz.json"):
        os.chown(path, SOMEBODY, SOMEBODY)
        path.chmod(0o777)
    state_owner.give_to_root(Host(tmp_path), Path("/var"))
    agent = loading.load(place)
    assert agent.tunnel.ssh_command == ("ssh",)
    assert agent.identity.machine_uuid == identity["machine_uuid"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in (state, planted)} == {0o700}


def test_root_changes_no_directory_to_which_a_planted_link_leads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o755)
    (tmp_path / "run").symlink_to(tmp_path / "elsewhere")
    # It was put there just after it was seen to be none.
    monkeypatch.setattr(var_dir, "directory", lambda _state, name: tmp_path / name)
    nobody: Any = None
    with pytest.raises(OSError, match="run"):
        var_dir.runtime_directory(nobody)
    assert stat.S_IMODE((tmp_path / "elsewhere").stat().st_mode) == 0o755


def test_a_link_in_place_of_the_generated_configuration_leads_root_nowhere(tmp_path: Path) -> None:
    state = tmp_path / "var"
    state.mkdir()
    (tmp_path / "elsewhere").mkdir(mode=0o755)
    (state / "config.d").symlink_to(tmp_path / "elsewhere")
    state_owner.give_to_root(Host(tmp_path), Path("/var"))
    assert not os.path.lexists(state / "config.d")
    assert stat.S_IMODE((tmp_path / "elsewhere").stat().st_mode) == 0o755


def test_a_join_token_is_in_no_list_of_processes_while_setup_works() -> None:
    script = "import sys; from turku.core.kernel import process_arguments as a; a.hide(sys.argv[2]); input(sys.argv[2])"
    argv = [sys.executable, "-c", script, "setup", "turku-machine-SECRET", "--yes"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        assert program.stdout.read(len(argv[4])) == argv[4].encode()
        shown = Path(f"/proc/{program.pid}/cmdline").read_bytes().removesuffix(b"\0").split(b"\0")
        program.stdin.write(b"\n")
        program.stdin.close()
    assert shown == [*map(os.fsencode, argv[:4]), b"*" * len(argv[4]), b"--yes"]
