"""M6: with its key a machine gets one forced command and one TCP port of loopback from the storage's sshd, and nothing
else.

There are two guards: the line that Turku writes into authorized_keys, and the sshd snippet. Each is tried alone, in an
sshd that would allow everything else, and both together. ``turku-storage check`` must report everything that a line
cannot forbid.
"""

import getpass
import itertools
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.support import host_snippets
from tests.support.backed_up_machine import storage_configuration
from tests.support.sshd import Sshd, free_port
from tests.support.storage_host import PROGRAMS

from turku.core import command
from turku.core.kernel import tcp_table
from turku.core.kernel.tcp_table import TcpState
from turku.protocol.messages import AssignedMachine
from turku.storage.commands.protection import sshd
from turku.storage.commands.protection.fact import Verdict
from turku.storage.registration import authorized_keys

UUID = "9bef0a75-5a9b-43f7-a66a-7e8c6d7ad91d"
# Everything that a line or the snippet has to forbid. No X11 program need be there: sshd only looks for one to run.
GENEROUS = (
    *("X11Forwarding yes", "XAuthLocation /bin/true", "PermitTunnel yes", "AllowAgentForwarding yes", "PermitTTY yes"),
    *("AllowTcpForwarding yes", "AllowStreamLocalForwarding yes", "GatewayPorts clientspecified"),
)
COMMAND = "echo in agent=[$SSH_AUTH_SOCK] display=[$DISPLAY] x=[$X_EVIL] preload=[$LD_PRELOAD]; exec sleep 5; :"
LINE, SNIPPET_ALONE, BOTH = "line", "snippet", "line and snippet"


@dataclass
class Target:
    """An sshd that admits one machine's key."""

    sshd: Sshd
    key: Path

    @contextmanager
    def ssh(
        self, *options: str, words: Sequence[str] = (COMMAND,), display: str = "", agent: Path | str = "none"
    ) -> Iterator[command.Child]:
        argv = self.sshd.client(self.key, "-o", "ExitOnForwardFailure=yes", *options, command=words)
        argv[argv.index("IdentityAgent=none")] = f"IdentityAgent={agent}"
        environment = {"DISPLAY": display, "X_EVIL": "evil"}
        with command.start(argv, stdin=True, extra_environment=environment) as child:
            yield child

    @property
    def effective(self) -> str:
        """Return the effective configuration of this sshd for the user whom machines log in as."""
        configuration = self.sshd.directory / "sshd_config"
        return command.run(
            ["/usr/sbin/sshd", "-T", "-f", configuration, "-C", f"user={self.sshd.user},host=localhost,addr=127.0.0.1"],
            timeout_seconds=20,
        ).stdout.decode()


@contextmanager
def target(directory: Path, guard: str, *generous: str, forced: str = COMMAND) -> Iterator[Target]:
    directory.mkdir(exist_ok=True)
    snippet = directory / "turku-storage.conf"
    snippet.write_text(
        host_snippets.sshd().replace("Match User turku-storage", f"Match User {getpass.getuser()}") + "Match all\n"
    )
    configuration = storage_configuration(
        directory / "etc", authorized_keys_command=forced, authorized_keys_file=str(directory / "authorized_keys")
    )
    include = () if guard == LINE else (f"Include {snippet}",)
    lines = (*include, *generous, *GENEROUS)
    with Sshd(directory / "sshd", authorized_keys=configuration.ssh.authorized_keys_file, extra_lines=lines) as sshd:
        key = sshd.new_key("machine")
        public_key = Path(f"{key}.pub").read_text()
        if guard == SNIPPET_ALONE:
            configuration.ssh.authorized_keys_file.write_text(public_key)
        else:
            authorized_keys.write(configuration, {UUID: AssignedMachine(ssh_public_key=public_key)})
        yield Target(sshd, key)


@pytest.fixture(scope="module", params=[LINE, SNIPPET_ALONE, BOTH])
def storage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """Each guard alone, and both."""
    with target(tmp_path_factory.mktemp("storage"), request.param) as running:
        yield running


@pytest.fixture(scope="module", params=[LINE, BOTH])
def storage_with_line(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A storage with the line alone. The snippet leaves everything about a command to it."""
    with target(tmp_path_factory.mktemp("line"), request.param) as running:
        yield running


@pytest.fixture(scope="module", params=[SNIPPET_ALONE, BOTH])
def storage_with_snippet(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A storage with the snippet alone, for everything that only sshd's configuration can forbid."""
    with target(tmp_path_factory.mktemp("snippet"), request.param, "GatewayPorts yes", "AcceptEnv *") as running:
        yield running


def wait_for(child: command.Child, *texts: str) -> bool:
    """True when ssh printed one of the texts before it ended."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        is_over = child.poll() is not None
        if is_over:
            child.wait(5)
        if any(text in "\n".join(child.last_lines) for text in texts):
            return True
        if is_over:
            return False
        time.sleep(0.02)
    return False


@contextmanager
def canary(path: Path | None = None) -> Iterator[socket.socket]:
    """A service of the storage, on a TCP port of loopback or at a Unix socket."""
    with socket.socket(socket.AF_UNIX if path else socket.AF_INET) as service:
        service.bind(str(path) if path else ("127.0.0.1", 0))
        service.listen()
        service.settimeout(0.5)
        yield service


def assert_nobody_came(service: socket.socket) -> None:
    with pytest.raises(TimeoutError):
        service.accept()


def listeners(port: int) -> set[str]:
    """Return the addresses that take connections to the port."""
    return {str(found.address) for found in tcp_table.sockets(TcpState.LISTEN, port=port)}


LOOPBACK = {"127.0.0.1", "::1"}


@pytest.mark.parametrize("bind", ["", "localhost:"])
def test_m6_the_tunnel_of_a_backup_listens_on_loopback_and_works(storage: Target, bind: str) -> None:
    with canary() as machines_rsyncd:
        port = free_port()
        with storage.ssh("-R", f"{bind}{port}:127.0.0.1:{machines_rsyncd.getsockname()[1]}") as child:
            assert wait_for(child, "in agent")
            assert listeners(port) <= LOOPBACK
            with socket.create_connection(("127.0.0.1", port), 5):
                machines_rsyncd.accept()[0].close()


@pytest.mark.parametrize("bind", ["0.0.0.0", "*", "", "[::]", "127.0.0.2", "10.0.0.1", "example.com"])
def test_m6_nothing_listens_on_other_addresses(storage: Target, bind: str) -> None:
    port = free_port()
    with storage.ssh("-R", f"{bind}:{port}:127.0.0.1:9") as child:
        assert child.wait(15) == 255
        assert "remote port forwarding failed" in "\n".join(child.last_lines)
        assert listeners(port) == set()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::ffff:127.0.0.1"])
def test_m6_no_service_of_the_storage_is_reached(storage: Target, host: str) -> None:
    with canary() as service:
        port = free_port()
        with storage.ssh("-L", f"127.0.0.1:{port}:[{host}]:{service.getsockname()[1]}") as child:
            assert wait_for(child, "in agent")
            with socket.create_connection(("127.0.0.1", port), 5) as connection:
                connection.settimeout(5)
                assert connection.recv(1) == b""
            assert_nobody_came(service)


def test_m6_the_storage_is_no_proxy(storage: Target) -> None:
    with canary() as service:
        port = free_port()
        with storage.ssh("-D", f"127.0.0.1:{port}") as child:
            assert wait_for(child, "in agent")
            with socket.create_connection(("127.0.0.1", port), 5) as connection:
                connection.settimeout(5)
                connection.sendall(b"\x05\x01\x00")
                assert connection.recv(2) == b"\x05\x00"
                target_port = service.getsockname()[1].to_bytes(2, "big")
                connection.sendall(b"\x05\x01\x00\x01\x7f\x00\x00\x01" + target_port)
                assert connection.recv(10)[1:2] != b"\x00"
            assert_nobody_came(service)


def test_m6_nor_with_its_own_input_and_output(storage: Target) -> None:
    with canary() as service, storage.ssh("-W", f"127.0.0.1:{service.getsockname()[1]}", words=()) as child:
        assert child.wait(15) != 0
        assert_nobody_came(service)


def test_m6_no_unix_socket_of_the_storage_is_reached(storage: Target, tmp_path: Path) -> None:
    with canary(tmp_path / "service") as service:
        port = free_port()
        with storage.ssh("-L", f"127.0.0.1:{port}:{tmp_path / 'service'}") as child:
            assert wait_for(child, "in agent")
            with socket.create_connection(("127.0.0.1", port), 5) as connection:
                connection.settimeout(5)
                assert connection.recv(1) == b""
            assert_nobody_came(service)


def test_m6_there_is_no_terminal(storage: Target) -> None:
    with storage.ssh("-tt", words=(f"tty; {COMMAND}",)) as child:
        assert wait_for(child, "PTY allocation request failed")
        assert "/dev/" not in "\n".join(child.last_lines)


def test_m6_an_agent_is_not_forwarded(storage: Target, tmp_path: Path) -> None:
    agent = tmp_path / "agent"
    with command.start(["ssh-agent", "-D", "-a", agent]):
        deadline = time.monotonic() + 60
        while not agent.exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        with storage.ssh("-A", agent=agent) as child:
            assert wait_for(child, "in agent=[]")


def test_m6_x11_is_not_forwarded(storage: Target) -> None:
    with storage.ssh("-Y", display="127.0.0.1:9") as child:
        assert wait_for(child, "display=[]")


@pytest.mark.parametrize("layer", ["point-to-point", "ethernet"])
def test_m6_no_network_device_leads_into_the_storage(storage_with_snippet: Target, layer: str) -> None:
    with storage_with_snippet.ssh("-N", "-o", f"Tunnel={layer}", "-w", "any:any", words=()) as child:
        assert child.wait(15) == 255
        assert "Tunnel forwarding failed" in "\n".join(child.last_lines)


def test_m6_a_unix_socket_is_not_made_on_the_storage(storage_with_snippet: Target, tmp_path: Path) -> None:
    with storage_with_snippet.ssh("-R", f"{tmp_path / 'planted'}:127.0.0.1:9") as child:
        assert child.wait(15) == 255
    assert not (tmp_path / "planted").exists()


def test_m6_the_tunnel_listens_on_loopback_although_gateway_ports_is_set(storage_with_snippet: Target) -> None:
    port = free_port()
    with storage_with_snippet.ssh("-R", f"{port}:127.0.0.1:9") as child:
        assert wait_for(child, "in agent")
        assert listeners(port)
        assert listeners(port) <= LOOPBACK


@pytest.mark.parametrize("option", ["SendEnv=X_EVIL", "SetEnv=X_EVIL=evil LD_PRELOAD=/evil BASH_ENV=/evil"])
def test_m6_no_variable_of_the_machine_arrives_although_all_are_accepted(
    storage_with_snippet: Target, option: str
) -> None:
    with storage_with_snippet.ssh("-o", option) as child:
        assert wait_for(child, "x=[] preload=[]")


@pytest.mark.parametrize("option", ["SendEnv=X_EVIL", "SetEnv=X_EVIL=evil LD_PRELOAD=/evil BASH_ENV=/evil"])
def test_m6_no_variable_arrives_where_sshd_accepts_none(storage_with_line: Target, option: str) -> None:
    with storage_with_line.ssh("-o", option) as child:
        assert wait_for(child, "x=[] preload=[]")


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ((), ("-T",)),
        (("id",), ()),
        (("sh", "-c", "id"), ()),
        (("turku-ping-remote; id",), ()),
        (("$(id)",), ()),
        (("internal-sftp",), ()),
        (("sftp",), ("-s",)),
        (("scp", "-f", "/etc/passwd"), ()),
        (("scp", "-t", "/"), ()),
        (("rsync", "--server", "--sender", ".", "/etc"), ()),
        (("env",), ()),
    ],
    ids=lambda value: " ".join(value) or "none",
)
def test_m6_whatever_is_asked_for_the_forced_command_runs(
    storage_with_line: Target, words: tuple[str, ...], options: tuple[str, ...]
) -> None:
    with storage_with_line.ssh(*options, words=words) as child:
        assert wait_for(child, "in agent")
        said = "\n".join(child.last_lines)
    assert "uid=" not in said
    assert "root:" not in said
    assert "SSH_ORIGINAL" not in said


@pytest.mark.parametrize("program", ["sftp", "scp"])
def test_m6_file_transfer_programs_get_nothing(storage_with_line: Target, tmp_path: Path, program: str) -> None:
    sshd = storage_with_line.sshd
    argv = sshd.client(storage_with_line.key)[1:-1]
    options = ["-P" if word == "-p" else word for word in argv]
    at = options.index("-l")
    options[at : at + 2] = ["-o", f"User={sshd.user}"]
    done = command.run(
        [program, *options, "127.0.0.1:/etc/passwd", tmp_path / "stolen"], timeout_seconds=30, check=False
    )
    assert done.exit_code != 0
    assert not (tmp_path / "stolen").exists()


@pytest.mark.parametrize(
    "words",
    [
        "; touch {}",
        "$(touch {})",
        "`touch {}`",
        "\ntouch {}\n",
        "' ; touch {} '",
        '" ; touch {} "',
        " --help",
        "\x1b[31m",
    ],
)
def test_m6_the_requests_of_a_machine_are_data_to_the_real_forced_command(tmp_path: Path, words: str) -> None:
    planted = tmp_path / "planted"
    asked = f"{words.format(planted)}\n[2026-01-01 00:00:00,000 forged] INFO: all is well"
    forced = f"{PROGRAMS / 'turku-storage-ping'} --debug"
    with target(tmp_path / "storage", LINE, forced=forced) as storage, storage.ssh(words=(asked,)) as child:
        child.stdin.write(b'{"action": "checkin", "port": 50000}\n.\n')
        child.stdin.flush()
        assert child.wait(20) == 68
        assert "error [tunnel-refused]" in "\n".join(child.last_lines)
    assert not planted.exists()
    log = (tmp_path / "storage" / "etc" / "log").read_text()
    assert "forged" in log
    assert all(" forged]" not in line.split(" turku.")[0] for line in log.splitlines())
    assert log.isascii()
    assert "\x1b" not in log


def test_m6_check_reports_everything_that_no_line_can_forbid(tmp_path: Path) -> None:
    planted, port = tmp_path / "planted", free_port()
    with target(tmp_path / "storage", LINE, "GatewayPorts yes", "AcceptEnv *") as storage:
        fact = sshd.sshd_fact(storage.effective, user=storage.sshd.user)
        # And these are no false alarms.
        with storage.ssh("-R", f"{planted}:127.0.0.1:9") as child:
            assert wait_for(child, "in agent")
            assert planted.exists()
        with storage.ssh("-R", f"{port}:127.0.0.1:9", "-o", "SetEnv=X_EVIL=evil") as child:
            assert wait_for(child, "x=[evil]")
            assert not listeners(port) <= LOOPBACK
    assert fact.verdict is Verdict.FAIL
    for setting in ("allowstreamlocalforwarding yes", "gatewayports yes", "permittunnel yes", "acceptenv *"):
        assert setting in fact.text


def test_m6_check_is_content_with_the_snippet(storage_with_snippet: Target) -> None:
    fact = sshd.sshd_fact(storage_with_snippet.effective, user=storage_with_snippet.sshd.user)
    assert fact.verdict is Verdict.OK, fact.text


def test_m6_one_connection_is_one_session(storage_with_snippet: Target, tmp_path: Path) -> None:
    control = ("-o", f"ControlPath={tmp_path}/c")
    with storage_with_snippet.ssh(*control, "-M") as first:
        assert wait_for(first, "in agent")
        for _ in itertools.repeat(None, 2):
            with storage_with_snippet.ssh(*control) as second:
                assert not wait_for(second, "in agent") or "refused" in "\n".join(second.last_lines)
