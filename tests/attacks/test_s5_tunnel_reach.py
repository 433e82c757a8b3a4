"""S5: through the tunnel a storage reaches one port on one loopback address of the machine, and no other machine."""

import re
import socket
import subprocess
from pathlib import Path

import pytest
from tests.attacks.conftest import StartPing
from tests.integration.agent.conftest import Machine
from tests.support.hostile_storage import HostileStorage
from tests.support.processes import parent_of

from turku.core.kernel import tcp_table
from turku.core.kernel.tcp_table import TcpState


@pytest.fixture
def session(
    machine: Machine, hostile: HostileStorage, open_session: StartPing, tmp_path: Path
) -> subprocess.Popen[str]:
    tree = tmp_path / "src"
    tree.mkdir()
    machine.source("etc", tree)
    process = open_session()
    hostile.request()
    return process


def listeners(processes: set[int]) -> set[tuple[str, int]]:
    """Address and port of each TCP socket that these processes listen on."""
    inodes = set()
    for process in processes:
        for descriptor in Path(f"/proc/{process}/fd").iterdir():
            try:
                inodes |= set(re.findall(r"socket:\[(\d+)\]", str(descriptor.readlink())))
            except OSError:
                continue
    return {
        (str(found.address), found.port) for found in tcp_table.sockets(TcpState.LISTEN) if str(found.inode) in inodes
    }


def ancestors(process: int) -> set[int]:
    """The processes of sshd that serve the session of this one: the user's and the privileged one."""
    found: set[int] = set()
    while process > 1 and (not found or _is_sshd(process)):
        if _is_sshd(process):
            found.add(process)
        process = parent_of(process)
    return found


def _is_sshd(process: int) -> bool:
    # A program of its own serves sessions since OpenSSH 9.8.
    return re.match(r"sshd(-session)?:", Path(f"/proc/{process}/cmdline").read_text()) is not None


@pytest.mark.usefixtures("session")
def test_s5_the_tunnel_has_one_end_on_the_storage_and_it_is_on_loopback(
    machine: Machine, hostile: HostileStorage
) -> None:
    port = hostile.request()["port"]
    own = listeners(ancestors(hostile.process)) - {("127.0.0.1", machine.sshd.port)}
    assert own
    assert own <= {("127.0.0.1", port), ("::1", port)}


@pytest.mark.usefixtures("session")
@pytest.mark.parametrize("asked", [b"\x05\x01\x00", b"\x04\x01%s\x7f\x00\x00\x02\x00"], ids=["SOCKS5", "SOCKS4"])
def test_s5_the_tunnel_cannot_be_turned_elsewhere(hostile: HostileStorage, asked: bytes) -> None:
    # A service that only this machine may reach, beside rsyncd on the same address.
    with socket.create_server(("127.0.0.2", 0)) as other:
        number = other.getsockname()[1].to_bytes(2, "big")
        with socket.create_connection(("127.0.0.1", hostile.request()["port"]), 5) as tunnel:
            tunnel.settimeout(2)
            tunnel.sendall(asked.replace(b"%s", number))
            answer = tunnel.recv(64)
            if asked[0] == 5 and answer == b"\x05\x00":
                tunnel.sendall(b"\x05\x01\x00\x01\x7f\x00\x00\x02" + number)
                answer = tunnel.recv(64)
        other.settimeout(0.5)
        with pytest.raises(TimeoutError):
            other.accept()
        assert answer.startswith(b"@RSYNCD:")


def test_s5_the_storage_is_lent_no_agent_and_no_display(
    machine: Machine, hostile: HostileStorage, open_session: StartPing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", tmp_path / "agent"], stdout=subprocess.DEVNULL)
    try:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
        monkeypatch.setenv("DISPLAY", ":0")
        machine.source("etc", "/etc")
        # As an administrator's file might have it. Ours is not asked to heed it.
        machine.configure(ssh_command=["ssh", "-A", "-X"])
        open_session()
        hostile.request()
        assert {"SSH_AUTH_SOCK", "DISPLAY"}.isdisjoint(hostile.environment)
    finally:
        agent.terminate()
        agent.wait()


@pytest.mark.usefixtures("session")
def test_s5_rsyncd_itself_listens_on_loopback_only(session: subprocess.Popen[str], hostile: HostileStorage) -> None:
    children = {int(pid) for pid in Path(f"/proc/{session.pid}/task/{session.pid}/children").read_text().split()}
    for task in Path(f"/proc/{session.pid}/task").iterdir():
        children |= {int(pid) for pid in (task / "children").read_text().split()}
    assert listeners(children) == {("127.0.0.2", hostile.request()["port"])}
