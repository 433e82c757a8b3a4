"""The machine's own rsync daemon: the due modules only, for the length of one session (contract, steps 4.1 and 4.2)."""

from __future__ import annotations

import errno
import ipaddress
import logging
import os
import re
import secrets
import signal
import socket
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from msgspec import UNSET, UnsetType

from turku.agent import runtime_directory
from turku.agent.config.configuration import AgentConfig
from turku.core import command
from turku.core.bounded_log import Counted, kind_of
from turku.core.secret import Secret, generate_secret
from turku.errors import CommandFailed
from turku.policy import compression
from turku.protocol.messages import PORT_RANGE, SourceCredentials

_LOG = logging.getLogger(__name__)
_START_TIMEOUT_SECONDS = 30.0
_GREETING_TIMEOUT_SECONDS = 5.0
PORT_ATTEMPTS = 20
_CONNECTIONS = 16
"""Per module at the same time: a storage needs one; a restoring operator may run several."""
_TROUBLE = re.compile(r"rsync( error| warning)?:|@ERROR|auth failed|denied|unable to|failed to", re.IGNORECASE)
_STAMP = re.compile(r"\A\d{4}/\d\d/\d\d \d\d:\d\d:\d\d \[\d+\] ")
PERCENT_VARIABLE = "TURKU_PERCENT"
_LISTEN_STATE = "0A"
_CAP_SYS_CHROOT = 1 << 18


@dataclass(frozen=True)
class Module:
    """A directory that the daemon offers, with credentials that are good for this session only."""

    name: str
    path: str
    writable: bool = False
    hidden: tuple[Path, ...] = ()
    """Directories below the path that the daemon does not show."""
    emptied: tuple[Path, ...] = ()
    """Directories below the path that the daemon shows without what is in them."""
    one_file_system: bool | UnsetType = UNSET
    """The source's option, where ``emptied`` is how it is obeyed."""
    username: str = field(default_factory=lambda: str(uuid.uuid4()))
    password: Secret = field(default_factory=generate_secret)

    @property
    def credentials(self) -> SourceCredentials:
        return SourceCredentials(
            username=self.username, password=self.password.reveal(), one_file_system=self.one_file_system
        )


class PortTaken(CommandFailed):
    """Somebody else listens on the port that was drawn."""


def draw_port() -> int:
    """A random port of the contract's range."""
    return secrets.choice(PORT_RANGE)


@contextmanager
def serve(agent: AgentConfig, modules: Sequence[Module], directory: Path) -> Iterator[int]:
    """The port on which a daemon answers for the length of the block; a port taken on this machine is passed over.

    ``directory`` is private and empty; configuration and secrets are written there.
    Raises CommandFailed when the daemon does not come up.
    """
    for attempt in range(1, PORT_ATTEMPTS + 1):
        port = draw_port()
        try:
            with _serve_on(agent, modules, _write_files(agent, modules, directory / str(attempt), port), port):
                yield port
                return
        except PortTaken as error:
            _LOG.info("%s; trying another port", error.message)
    raise CommandFailed(f"no free port on {agent.rsyncd_local_address} for rsyncd in {PORT_ATTEMPTS} attempts")


@contextmanager
def _serve_on(agent: AgentConfig, modules: Sequence[Module], configuration: Path, port: int) -> Iterator[None]:
    require_free(agent.rsyncd_local_address, port)
    argv = [*agent.rsyncd_command, "--daemon", "--no-detach", f"--config={configuration}"]
    # Only where a path needs it, so that wrappers that drop the environment serve all other paths.
    extra = {PERCENT_VARIABLE: "%"} if any("%" in module.path for module in modules) else None
    listener = DaemonLog()
    # At INT and TERM rsync first sleeps for 0.4 s, in case an ssh of its own waits for a password.
    with command.start(argv, on_line=listener.line, extra_environment=extra, end_signal=signal.SIGUSR1) as daemon:
        wait_until_ready(daemon, agent.rsyncd_local_address, port)
        try:
            yield
        finally:
            listener.end()


def require_free(address: str, port: int) -> None:
    """Raise PortTaken where another program listens there, CommandFailed where nobody can."""
    with socket.socket(_family(address)) as probe:
        # As rsyncd does: a connection of the last minute that is still closing is no reason to pass.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
            probe.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise PortTaken(f"port {port} on {address} is taken on this machine") from error
            raise CommandFailed(
                f"cannot listen on {address} port {port}: {error.strerror}",
                hint="rsyncd_local_address must be an address of this machine",
            ) from error


def wait_until_ready(daemon: command.Child, address: str, port: int) -> None:
    """Return when the daemon does. Raises CommandFailed when it does not, PortTaken where another program does."""
    deadline = time.monotonic() + _START_TIMEOUT_SECONDS
    pause_seconds = 0.002
    while not _greets(address, port):
        if daemon.poll() is not None:
            code = daemon.wait(1)
            lines = daemon.last_lines
            kind = PortTaken if any("Address already in use" in line for line in lines) else CommandFailed
            raise kind(f"rsyncd ended with exit code {code} before it answered", details="\n".join(lines))
        if time.monotonic() > deadline:
            raise CommandFailed(
                f"rsyncd did not answer on {address} port {port} within {_START_TIMEOUT_SECONDS:g} s",
                details="\n".join(daemon.last_lines),
            )
        time.sleep(pause_seconds)
        pause_seconds = min(2 * pause_seconds, 0.1)
    if not _listener_is_ours(port):
        raise PortTaken(f"another user's program took port {port} on this machine")


def _greets(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), _GREETING_TIMEOUT_SECONDS) as connection:
            greeted = connection.recv(64).startswith(b"@RSYNCD:")
            # Taking leave by the protocol (an empty list of modules) keeps a complaint out of rsyncd's log.
            connection.sendall(b"@RSYNCD: 31.0\n#list\n")
            while connection.recv(1024):
                pass
            return greeted
    except OSError:
        return False


def _listener_is_ours(port: int) -> bool:
    """False when another user than us or root listens on the port: a program of theirs that was faster than rsyncd
    could feed the storage what it likes (threats N4). True where the kernel does not tell."""
    owners = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with Path(table).open(encoding="ascii") as lines:
                next(lines, None)
                for line in lines:
                    _slot, local, _remote, state, _queues, _timer, _retransmits, owner, *_ = line.split()
                    if state == _LISTEN_STATE and local.endswith(f":{port:04X}"):
                        owners.add(int(owner))
        except OSError:
            continue
    return owners <= {0, os.geteuid()}


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ipaddress.ip_address(address).version == 6 else socket.AF_INET


def can_change_root(status: Path = Path("/proc/self/status")) -> bool:
    """Whether rsyncd can be locked into a module: root can, as can a user who was given CAP_SYS_CHROOT alone."""
    try:
        with status.open(encoding="ascii", errors="replace") as lines:
            for line in lines:
                name, _colon, value = line.partition(":")
                if name == "CapEff":
                    return bool(int(value, 16) & _CAP_SYS_CHROOT)
    except (OSError, ValueError):
        pass
    return os.geteuid() == 0


def _write_files(agent: AgentConfig, modules: Sequence[Module], directory: Path, port: int) -> Path:
    directory.mkdir(mode=0o700)
    secrets_files, exclude_files = {}, {}
    for number, module in enumerate(modules):
        path = directory / f"secrets-{number}"
        runtime_directory.write_private(path, f"{module.username}:{module.password.reveal()}\n")
        secrets_files[module.name] = path
        if module.hidden or module.emptied:
            found = [_pattern(hidden.relative_to(module.path)) for hidden in module.hidden]
            found += [_pattern_within(emptied.relative_to(module.path)) for emptied in module.emptied]
            patterns = "".join(f"{pattern}\n" for pattern in found)
            exclude_files[module.name] = runtime_directory.write_private(directory / f"exclude-{number}", patterns)
    text = configuration_text(
        modules,
        secrets_files,
        exclude_files,
        address=agent.rsyncd_local_address,
        port=port,
        lock_file=directory / "connections.lock",
        user_and_group=(agent.rsyncd_user, agent.rsyncd_group) if os.geteuid() == 0 else None,
        change_root=can_change_root(),
    )
    return runtime_directory.write_private(directory / "rsyncd.conf", text)


def configuration_text(
    modules: Sequence[Module],
    secrets_files: Mapping[str, Path],
    exclude_files: Mapping[str, Path] = MappingProxyType({}),
    *,
    address: str,
    port: int,
    lock_file: Path,
    user_and_group: tuple[str, str] | None,
    change_root: bool | None = None,
) -> str:
    """The daemon's configuration; without ``user_and_group`` (not root) it does not change its user.

    ``change_root`` locks it into each module's path; it goes with the user where it is not said.
    """
    lines = [
        f"address = {address}",
        f"port = {port}",
        # Where our reader of its output listens; without a log file rsyncd would write to syslog.
        "log file = /dev/stderr",
        "reverse lookup = no",
        "forward lookup = no",
        f"hosts allow = 127.0.0.0/8 ::1 {address}",
        "list = no",
        f"max connections = {_CONNECTIONS}",
        f"lock file = {lock_file}",
        # Links go over as they are; the default without chroot is to change them.
        "munge symlinks = no",
        # Where a storage wants compression, what is compressed already is sent as it is.
        f"dont compress = {' '.join(f'*.{suffix}' for suffix in compression.SUFFIXES)}",
        "numeric ids = yes",
        "strict modes = yes",
    ]
    if user_and_group is not None:
        lines += [f"uid = {user_and_group[0]}", f"gid = {user_and_group[1]}"]
    if change_root is None:
        change_root = user_and_group is not None
    lines.append(f"use chroot = {'yes' if change_root else 'no'}")
    for module in modules:
        lines += [
            f"[{module.name}]",
            f"path = {quoted_path(module.path)}",
            f"read only = {'no' if module.writable else 'yes'}",
            f"auth users = {module.username}",
            f"secrets file = {secrets_files[module.name]}",
            *([f"exclude from = {exclude_files[module.name]}"] if module.name in exclude_files else []),
        ]
    return "\n".join(lines) + "\n"


def _pattern(path: Path) -> str:
    """Return a pattern of rsync's for the path, which has a name drawn by lot at its end: no other is like it."""
    return "/" + re.sub(rb"[^A-Za-z0-9._/-]", b"?", os.fsencode(path)).decode("ascii")


def _pattern_within(path: Path) -> str:
    """Return a pattern of rsync's for all that is in the directory, and nothing else.

    A backslash takes a character's meaning away wherever the pattern has a wildcard, and this one ends with one. There
    is no way to write a line break, for which any character stands.
    """
    escaped = re.sub(r"([\\*?\[])", r"\\\1", os.fsdecode(path))
    return "/" + re.sub(r"[\n\r]", "?", escaped) + "/*"


def quoted_path(path: str) -> str:
    """The path as rsyncd.conf must have it: there is no quoting, but what would be changed can be avoided.

    A slash at the end keeps a last blank or backslash; ``/./`` would mean another chroot; ``%NAME%`` would be expanded,
    so each percent sign comes from a variable itself.
    """
    parts = [part for part in path.split("/") if part not in ("", ".")]
    return "".join(("/", *(f"{part}/" for part in parts))).replace("%", f"%{PERCENT_VARIABLE}%")


class DaemonLog:
    """Puts what rsyncd says on the log: trouble as warnings, until we end it ourselves.

    Of trouble with thousands of files the first messages are logged and the others counted.
    """

    def __init__(self) -> None:
        self._is_ending = False
        self._counted = Counted()

    def line(self, line: str) -> None:
        text = _STAMP.sub("", line)
        is_shown = False
        if _TROUBLE.search(text) and not self._is_ending:
            is_shown, is_first_hidden = self._counted.take(kind_of(text))
            if is_first_hidden:
                _LOG.warning("rsyncd: more messages follow; they are counted and not shown")
        _LOG.log(logging.WARNING if is_shown else logging.DEBUG, "rsyncd: %s", text)

    def end(self) -> None:
        """Say how much was not logged, and take no further message for trouble: the daemon is ended now."""
        self._is_ending = True
        summary = self._counted.summary()
        if summary:
            _LOG.warning("rsyncd: %s", summary)
