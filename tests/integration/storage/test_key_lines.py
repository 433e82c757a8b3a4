"""The powers that sshd gives a machine's key with the line that Turku wrote (threats M6): one forced command and one
tunnel."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support.backed_up_machine import storage_configuration
from tests.support.sshd import Sshd, free_port

from turku.core import command
from turku.protocol.messages import AssignedMachine
from turku.storage.registration import authorized_keys

UUID = "9bef0a75-5a9b-43f7-a66a-7e8c6d7ad91d"


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    directory = tmp_path_factory.mktemp("lines")
    # The forced command tells what it was, then stays: the session's tunnel stays with it.
    configuration = storage_configuration(
        directory / "etc",
        authorized_keys_command="/bin/echo forced agent=[$SSH_AUTH_SOCK] display=[$DISPLAY]; exec sleep 5; :",
        authorized_keys_file=str(directory / "authorized_keys"),
    )
    # All but the sockets is left to the key's line. No X11 program need be there: sshd only looks for one to run.
    lines = ["AllowStreamLocalForwarding no", "X11Forwarding yes", "XAuthLocation /bin/true"]
    with Sshd(directory / "sshd", authorized_keys=directory / "authorized_keys", extra_lines=lines) as running:
        running.new_key("machine")
        public_key = (running.directory / "machine.pub").read_text()
        authorized_keys.write(configuration, {UUID: AssignedMachine(ssh_public_key=public_key)})
        yield running


@contextmanager
def ssh(
    sshd: Sshd, *options: str, words: tuple[str, ...] = ("id",), display: str = "", agent: Path | str = "none"
) -> Iterator[command.Child]:
    argv = sshd.client(sshd.directory / "machine", "-o", "ExitOnForwardFailure=yes", *options, command=words)
    argv[argv.index("IdentityAgent=none")] = f"IdentityAgent={agent}"
    with command.start(argv, stdin=True, extra_environment={"DISPLAY": display}) as child:
        yield child


def wait_for(child: command.Child, text: str) -> bool:
    """True when ssh printed ``text`` before it ended."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if text in "\n".join(child.last_lines):
            return True
        if child.poll() is not None:
            child.wait(5)
            return text in "\n".join(child.last_lines)
        time.sleep(0.02)
    return False


@contextmanager
def listening() -> Iterator[socket.socket]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(1)
        yield listener


@pytest.mark.parametrize("bind", ["", "localhost:"])
def test_reverse_forwarding_on_loopback_is_admitted(sshd: Sshd, bind: str) -> None:
    with listening() as service:
        port = free_port()
        forward = f"{bind}{port}:127.0.0.1:{service.getsockname()[1]}"
        with ssh(sshd, "-R", forward) as child:
            assert wait_for(child, "forced")
            with socket.create_connection(("127.0.0.1", port), 5):
                service.accept()[0].close()


@pytest.mark.parametrize("bind", ["0.0.0.0", "*", "127.0.0.2", "[::]", "10.0.0.1", ""])
def test_reverse_forwarding_on_other_addresses_is_refused(sshd: Sshd, bind: str) -> None:
    with ssh(sshd, "-R", f"{bind}:{free_port()}:127.0.0.1:9") as child:
        assert child.wait(15) == 255
        assert "remote port forwarding failed" in "\n".join(child.last_lines)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_forward_forwarding_to_a_service_is_refused(sshd: Sshd, host: str) -> None:
    with listening() as service:
        port = free_port()
        with ssh(sshd, "-L", f"127.0.0.1:{port}:{host}:{service.getsockname()[1]}") as child:
            assert wait_for(child, "forced")
            with socket.create_connection(("127.0.0.1", port), 5) as connection:
                connection.settimeout(5)
                assert connection.recv(1) == b""
            with pytest.raises(TimeoutError):
                service.accept()
            assert wait_for(child, "administratively prohibited")


def test_the_one_address_that_may_be_forwarded_to_cannot_be_connected_to(sshd: Sshd) -> None:
    port = free_port()
    with ssh(sshd, "-L", f"127.0.0.1:{port}:255.255.255.255:1") as child:
        assert wait_for(child, "forced")
        with socket.create_connection(("127.0.0.1", port), 5) as connection:
            connection.settimeout(5)
            assert connection.recv(1) == b""
        assert wait_for(child, "connect failed")


def test_forward_forwarding_to_a_unix_socket_is_refused(sshd: Sshd, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as service:
        service.bind(str(tmp_path / "service"))
        service.listen()
        service.settimeout(1)
        port = free_port()
        with ssh(sshd, "-L", f"127.0.0.1:{port}:{tmp_path / 'service'}") as child:
            assert wait_for(child, "forced")
            with socket.create_connection(("127.0.0.1", port), 5), pytest.raises(TimeoutError):
                service.accept()


def test_a_unix_socket_on_the_storage_is_refused_by_the_sshd_snippet(sshd: Sshd, tmp_path: Path) -> None:
    with ssh(sshd, "-R", f"{tmp_path / 'planted'}:127.0.0.1:9") as child:
        assert child.wait(15) == 255
    assert not (tmp_path / "planted").exists()


@pytest.mark.parametrize("words", [(), ("id",), ("sh", "-c", "id"), ("turku-ping-remote",)])
def test_only_the_forced_command_runs(sshd: Sshd, words: tuple[str, ...]) -> None:
    with ssh(sshd, "-T", words=words) as child:
        assert wait_for(child, "forced")
        assert "uid=" not in "\n".join(child.last_lines)


def test_sftp_gets_the_forced_command_instead(sshd: Sshd) -> None:
    with ssh(sshd, "-s", words=("sftp",)) as child:
        assert wait_for(child, "forced")


def test_a_terminal_is_refused(sshd: Sshd) -> None:
    with ssh(sshd, "-tt") as child:
        assert wait_for(child, "PTY allocation request failed")


def test_an_agent_is_not_forwarded(sshd: Sshd, tmp_path: Path) -> None:
    agent = tmp_path / "agent"
    with command.start(["ssh-agent", "-D", "-a", agent]):
        deadline = time.monotonic() + 60
        while not agent.exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        with ssh(sshd, "-A", agent=agent) as child:
            assert wait_for(child, "forced agent=[] display=[]")


def test_x11_is_not_forwarded(sshd: Sshd) -> None:
    with ssh(sshd, "-Y", display="127.0.0.1:9") as child:
        assert wait_for(child, "forced agent=[] display=[]")


def test_a_tunnel_device_is_refused(sshd: Sshd) -> None:
    with ssh(sshd, "-o", "Tunnel=point-to-point", "-w", "any:any") as child:
        assert not wait_for(child, "Tunnel forwarding enabled")


def test_a_quote_in_the_command_does_not_end_the_option(tmp_path: Path) -> None:
    configuration = storage_configuration(
        tmp_path / "a 'directory' with \"quotes\"",
        authorized_keys_command="""/bin/echo "a  b" 'c"d' '\\"' 'e\\'""",
        authorized_keys_file=str(tmp_path / "authorized_keys"),
    )
    with Sshd(tmp_path / "sshd", authorized_keys=configuration.ssh.authorized_keys_file) as running:
        key = running.new_key("machine")
        public_key = Path(f"{key}.pub").read_text()
        authorized_keys.write(configuration, {UUID: AssignedMachine(ssh_public_key=public_key)})
        completed = command.run(running.client(key, command=("id",)), timeout_seconds=20)
    assert completed.stdout.decode() == (f'a  b c"d \\" e\\ {UUID} --config-dir {configuration.config_dir}\n')
