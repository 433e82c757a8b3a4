"""The SSH connection to a storage, with a reverse port forwarding to our rsyncd (contract, "A backup session")."""

import fcntl
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeVar

from msgspec import UNSET

from turku.agent.config.model import AgentConfig
from turku.agent.identity import key_pair
from turku.agent.state import var_dir
from turku.agent.tunnel import ssh_messages
from turku.agent.tunnel.storage_output import StorageOutput
from turku.agent.tunnel.trusted_storages import Address
from turku.core import command
from turku.errors import CommandFailed, TunnelRefused
from turku.protocol import codec
from turku.protocol.messages import REMOTE_COMMAND, SessionRequest, SourceCredentials
from turku.protocol.session_framing import SESSION_REQUEST_END, SESSION_REQUEST_LIMIT_BYTES

T = TypeVar("T")
EXIT_SSH_ITSELF = 255
SHELL_HINT = (
    "that comes from the login shell of the user that machines log in as there (its .bashrc, .zshenv, .cshrc or "
    ".ssh/rc), which must print nothing where nobody logs in; turku-storage check there names it"
)
"""The hint for text that a storage prints beside its answers."""
_CONNECT_TIMEOUT_SECONDS = 30
_ALIVE_INTERVAL_SECONDS = 60
_AES_GCM = ("aes256-gcm@openssh.com", "aes128-gcm@openssh.com")
_CHACHA20 = ("chacha20-poly1305@openssh.com",)
_AES_CTR = ("aes256-ctr", "aes192-ctr", "aes128-ctr")
"""Ciphers for a storage that supports none of the others."""
_PORT_ATTEMPTS = 5
_PORT_REFUSED = "remote port forwarding failed for listen port"
_LOG = logging.getLogger(__name__)


class RemotePortTaken(CommandFailed):
    """The storage could not listen on the requested port."""


class StorageProgramFailed(CommandFailed):
    """The program of a storage ended with another exit code than 0."""

    def __init__(self, message: str, exit_code_there: int, *, details: str = "", hint: str = "") -> None:
        super().__init__(message, details=details, hint=hint)
        self.exit_code_there = exit_code_there


def ssh_arguments(
    agent: AgentConfig,
    address: Address,
    *,
    key: Path,
    known_hosts: Path,
    port: int | None,
    previous_keys: Sequence[Path] = (),
    is_probe: bool = False,
) -> list[str | bytes | Path]:
    """Return the arguments of ssh. Other configuration is ignored, unless ``ssh_command`` names a configuration file.

    Without a ``port`` nothing is forwarded. ``previous_keys`` are offered after ``key``, because a storage learns of a
    new key some minutes later. With ``is_probe`` nothing is started there, and ssh says that it logged in.
    """
    local = agent.rsyncd.rsyncd_local_address
    if ":" in local:
        local = f"[{local}]"
    options = {
        "BatchMode": "yes",
        "UserKnownHostsFile": _quoted(known_hosts),
        "GlobalKnownHostsFile": "/dev/null",
        "HostKeyAlias": ssh_messages.HOST_ALIAS,
        "StrictHostKeyChecking": "yes",
        "UpdateHostKeys": "no",
        "CheckHostIP": "no",
        "IdentityFile": _quoted(key),
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "PreferredAuthentications": "publickey",
        "ExitOnForwardFailure": "yes",
        "ForwardAgent": "no",
        "ForwardX11": "no",
        "PermitLocalCommand": "no",
        "ControlMaster": "no",
        "ControlPath": "none",
        "ConnectTimeout": str(_CONNECT_TIMEOUT_SECONDS),
        "ServerAliveInterval": str(_ALIVE_INTERVAL_SECONDS),
        "ServerAliveCountMax": "3",
        "TCPKeepAlive": "yes",
        "LogLevel": "VERBOSE" if is_probe else "INFO",
    }
    return [
        *agent.tunnel.ssh_command,
        *(() if any(word.startswith("-F") for word in agent.tunnel.ssh_command) else ("-F", "none")),
        "-T",
        *(word for name, value in options.items() for word in ("-o", f"{name}={value}")),
        *(word for path in previous_keys for word in ("-o", f"IdentityFile={_quoted(path)}")),
        *_cipher_arguments(agent.tunnel.ssh_command),
        *(() if port is None else ("-R", f"{port}:{local}:{port}")),
        *("-p", str(address.port)),
        *("-l", address.user),
        *(("-N",) if is_probe else ()),
        address.host,
        *(() if is_probe else (REMOTE_COMMAND,)),
    ]


def _cipher_arguments(ssh_command: Sequence[str]) -> tuple[str, ...]:
    """Return strong ciphers, the fastest first, or none where ``ssh_command`` sets a configuration file or ciphers."""
    if any(word.startswith(("-F", "-c")) or "ciphers" in word.lower() for word in ssh_command):
        return ()
    first, second = (_AES_GCM, _CHACHA20) if cpu_has_aes() else (_CHACHA20, _AES_GCM)
    return ("-o", f"Ciphers={','.join((*first, *second, *_AES_CTR))}")


def cpu_has_aes(table: Path = Path("/proc/cpuinfo")) -> bool:
    """Return True where the processor has instructions for AES, as far as Linux reports them (x86 and ARM)."""
    try:
        with table.open(encoding="ascii", errors="replace") as lines:
            for line in lines:
                name, _colon, value = line.partition(":")
                if name.strip() in ("flags", "Features"):
                    return "aes" in value.split()
    except OSError:
        pass
    return False


def _quoted(path: Path) -> str:
    # ssh splits the value at blanks and expands % and ${}. The administrator chose var_dir.
    return '"' + str(path).replace("%", "%%") + '"'


def known_hosts_text(address: Address) -> str:
    """Return the text of known_hosts. It has exactly the trusted keys among those that the coordinator gave."""
    return "".join(f"{ssh_messages.HOST_ALIAS} {key}\n" for key in address.host_keys)


def request_bytes(
    action: Literal["checkin", "restore"],
    *,
    port: int,
    sources: Mapping[str, SourceCredentials],
    withheld: Mapping[str, str] = MappingProxyType({}),
    parallel_sources: int | None = None,
    moment_ns: int | None = None,
) -> bytes:
    """Return the request to the storage's forced command. Raises CommandFailed where it is too large."""
    request = SessionRequest(
        verbose=True,
        action=action,
        port=port,
        sources=dict(sources),
        withheld=dict(withheld) or UNSET,
        parallel_sources=UNSET if parallel_sources is None else parallel_sources,
        moment_ns=UNSET if moment_ns is None else moment_ns,
    )
    content = ended_request(request)
    if len(content) > SESSION_REQUEST_LIMIT_BYTES:
        raise CommandFailed(f"{len(sources)} sources are more than one session can be asked for")
    return content


def ended_request(request: Any) -> bytes:
    """Return a request as the storage reads it: JSON, ended by a line with a single ``.``."""
    return codec.encode(request) + b"\n" + SESSION_REQUEST_END + b"\n"


@contextmanager
def open_tunnel(
    agent: AgentConfig,
    address: Address,
    *,
    port: int | None,
    request: bytes,
    output: StorageOutput,
    directory: Path,
    stdout: bool = False,
) -> Iterator[command.Child]:
    """Run ssh for the length of the block. Its standard input has received the request and stays open.

    With ``stdout`` the caller reads the storage's standard output, else ``output`` shows it. Raises CommandFailed when
    ssh cannot be started.
    """
    known_hosts = var_dir.write_private(directory / "known_hosts", known_hosts_text(address))
    argv = ssh_arguments(
        agent,
        address,
        key=key_pair.private_key_path(agent.state),
        previous_keys=key_pair.previous_keys(agent.state),
        known_hosts=known_hosts,
        port=port,
    )
    with output.summarized(), command.start(argv, stdin=True, stdout=True, on_line=output.show_line) as ssh:
        if not stdout:
            ssh.follow(ssh.stdout, lambda text: output.show_stdout_line(text, SHELL_HINT))
        # The pipe holds the whole request, so that writing never waits for a connection that may not come about.
        with suppress(OSError):
            fcntl.fcntl(ssh.stdin, fcntl.F_SETPIPE_SZ, 2 * SESSION_REQUEST_LIMIT_BYTES)
        try:
            ssh.stdin.write(request)
            ssh.stdin.flush()
        except BrokenPipeError:
            # ssh has ended already. Its exit code and last lines name the reason.
            pass
        yield ssh


def with_free_port(address: Address, directory: Path, attempt: Callable[[Path], T]) -> T:
    """Return the attempt's result. It is repeated while the storage finds the port that was drawn taken.

    Each attempt gets a new private directory in ``directory``. Raises CommandFailed after the last one.
    """
    details = ""
    for number in range(1, _PORT_ATTEMPTS + 1):
        scratch = directory / f"attempt-{number}"
        scratch.mkdir(mode=0o700)
        try:
            return attempt(scratch)
        except RemotePortTaken as error:
            _LOG.info("%s; trying another", error.message)
            details = error.details
    raise CommandFailed(
        f"storage {address.name} could not listen on any of {_PORT_ATTEMPTS} ports",
        details=details,
        hint="does its sshd allow it? AllowTcpForwarding and PermitListen of the user that machines log in as; "
        "turku-storage check there looks at them",
    )


def require_success(address: Address, exit_code: int, last_lines: Sequence[str]) -> None:
    """Raise RemotePortTaken or another CommandFailed when the session did not end well."""
    if exit_code == 0:
        return
    details = "\n".join(last_lines)
    if exit_code == EXIT_SSH_ITSELF:
        if any(_PORT_REFUSED in line for line in last_lines):
            raise RemotePortTaken(f"storage {address.name} could not listen on the port that was drawn")
        raise ssh_messages.failure(address, last_lines)
    if exit_code == TunnelRefused.exit_code:
        # sshd listens for IPv4 and IPv6 and accepts if one of them works. Only the storage notices a taken port.
        raise RemotePortTaken(
            f"storage {address.name} found the port that was drawn taken by another program", details=details
        )
    raise StorageProgramFailed(
        f"storage {address.name}: its program ended with exit code {exit_code}", exit_code, details=details
    )
