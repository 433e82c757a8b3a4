"""The authorized_keys file: a line for each machine, which restricts its key to Turku's session.

The restrictions answer the threats M1, M6 and C5.

The options of a line, as OpenSSH's sshd takes them:

* ``restrict`` forbids everything it knows (pty, agent, X11, user rc, forwarding), and what later versions add.
* ``command`` is all that runs, whatever the machine asks for: shell, program or subsystem such as sftp.
* ``port-forwarding`` gives forwarding back, of which only ``-R`` is needed.
* ``permitlisten="localhost:*"`` lets it listen on loopback only, on any port.
* ``permitopen`` is there because without it ``-L`` would reach every host, port and Unix socket that the storage can.
  sshd takes neither ``none`` nor port 0 in a key's line, so it names an address that TCP cannot connect to.

No option of a line forbids ``-R /path/of/a/socket:...``, nor, with ``port-forwarding``, a network device (``-w``), nor
what ``AcceptEnv`` and ``GatewayPorts yes`` allow: sshd_config must do that, and ``turku-storage check`` checks it.
"""

import logging
import os
import re
import shlex
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from turku.core import durable
from turku.errors import ConfigurationError, InvalidValue
from turku.policy import names, ssh_key
from turku.protocol.messages import AssignedMachine
from turku.storage.config.defaults import DEFAULT_DIRECTORY
from turku.storage.config.model import SshConfig, StorageConfig
from turku.storage.registration.acting_user import acting_as
from turku.storage.registration.key_removal import Removal

_LOG = logging.getLogger(__name__)

_RESTRICTIONS: Final = 'restrict,port-forwarding,permitlisten="localhost:*",permitopen="255.255.255.255:1"'
_MARK: Final = b"# Turku keeps this file; lines to be kept belong into the file of the same name with .static added."
_V1_COMMAND: Final = b"turku-storage-ping"
_V1_LINE: Final = re.compile(r'turku-storage-ping ([0-9a-f-]{36})[^"]*".*? ((?:ssh|ecdsa|sk)-\S+ \S+)', re.ASCII)
_FILE_LIMIT_BYTES: Final = 64 * 1024 * 1024
_FILE_MODE: Final = 0o600


@dataclass(frozen=True)
class Admitted:
    """A machine whose key is valid. ``key`` is ``TYPE BASE64``."""

    uuid: str
    key: str


@dataclass(frozen=True)
class Written:
    """The result of writing the file."""

    admitted: tuple[Admitted, ...]
    changed: bool


def forced_command(configuration: StorageConfig, uuid: str) -> str:
    """Return the command for the user's shell: the configured command with the machine's UUID.

    The configured part is the operator's own shell text (``sudo -n turku-storage-ping``) and stays as it is.
    """
    command = f"{configuration.ssh.authorized_keys_command} {names.machine_uuid(uuid)}"
    words = shlex.split(configuration.ssh.authorized_keys_command)
    names_directory = any(word == "-c" or word.startswith("--config-dir") for word in words)
    if configuration.config_dir != DEFAULT_DIRECTORY and not names_directory:
        command += f" --config-dir {shlex.quote(str(configuration.config_dir))}"
    return command


def line(configuration: StorageConfig, machine: Admitted) -> str:
    """Return the line of the machine, without its newline."""
    # Within the quotes sshd knows one escape: a backslash before a quote.
    command = forced_command(configuration, machine.uuid).replace('"', '\\"')
    text = f'{_RESTRICTIONS},command="{command}" {machine.key} turku:{machine.uuid}'
    if not text.isprintable():
        raise ConfigurationError("authorized_keys_command or the configuration directory has control characters")
    return text


def admit(machines: Mapping[str, AssignedMachine], *, static: bytes = b"", current: bytes = b"") -> list[Admitted]:
    """Return the machines with a valid UUID and key, in the given order. A warning gives the reason for each other one.

    A key that several machines claim stays with the one that has it in ``current``, or else goes to the first. sshd
    would take the first line only, and so let a machine act as another. A key in the ``static`` lines is the
    operator's.
    """
    static_words = set(static.split())
    holders = _holders(current)
    claims: dict[str, list[str]] = {}
    for uuid, machine in machines.items():
        try:
            good_uuid = names.machine_uuid(uuid)
            if machine.ssh_public_key is None:
                _LOG.info("machine %s has no SSH key yet", good_uuid)
                continue
            key = ssh_key.ssh_public_key(machine.ssh_public_key).line
        except InvalidValue as error:
            _LOG.warning("machine %.100s gets no line in authorized_keys: %s", uuid, error.message)
            continue
        if key.split()[1].encode() in static_words:
            _LOG.warning("machine %s gets no line in authorized_keys: its key is one of the .static file", good_uuid)
            continue
        claims.setdefault(key, []).append(good_uuid)
    admitted = []
    for key, claimants in claims.items():
        owner = holders.get(key, claimants[0])
        if owner not in claimants:
            owner = claimants[0]
        admitted.append(Admitted(owner, key))
        for uuid in claimants:
            if uuid != owner:
                _LOG.warning("machine %s gets no line in authorized_keys: machine %s has the same key", uuid, owner)
    return admitted


def write(
    configuration: StorageConfig, machines: Mapping[str, AssignedMachine], removal: Removal | None = None
) -> Written:
    """Replace the file: first the ``.static`` lines, then those of the machines.

    Return who is in it, and if it changed. ``removal`` decides which machines keep their present lines although
    ``machines`` lacks them. None is for none. Raises ConfigurationError if lines that are not Turku's would be lost or
    a file cannot be read safely, and DurableWriteFailed.
    """
    path = configuration.ssh.authorized_keys_file
    static_path = path.with_name(f"{path.name}.static")
    with acting_as(configuration.ssh.authorized_keys_user, for_path=path) as owner:
        _make_parent(path.parent, owner)
        static = _read(static_path)
        current = _read(path)
        if static is None and current is not None:
            _refuse_loss(configuration.ssh, current)
    admitted = admit(machines, static=static or b"", current=current or b"")
    if removal is not None:
        # The temporary file is in var_dir, which the other user may not even reach.
        admitted += _held(removal, current or b"", admitted)
    with acting_as(configuration.ssh.authorized_keys_user, for_path=path) as owner:
        content = _content(configuration, static or b"", admitted)
        changed = content != current or not _is_as_sshd_wants(path, owner)
        if changed:
            durable.write_bytes(path, content, mode=_FILE_MODE, owner=owner)
    return Written(tuple(admitted), changed)


def _held(removal: Removal, current: bytes, admitted: Sequence[Admitted]) -> list[Admitted]:
    """Return the machines that keep their present lines. A key that belongs to another machine by now is not kept."""
    before = {uuid: key for key, uuid in (_holders(current) or _foreign_holders(current)).items()}
    taken = {machine.key for machine in admitted}
    held = removal.held(before, [machine.uuid for machine in admitted])
    return [Admitted(uuid, key) for uuid, key in held.items() if key not in taken]


def _foreign_holders(current: bytes) -> dict[str, str]:
    """Return the UUID of each key in lines that an existing storage wrote before this one took over."""
    holders: dict[str, str] = {}
    for text in current.decode("utf-8", "replace").splitlines():
        found = _V1_LINE.search(text)
        if found is not None:
            try:
                holders[ssh_key.ssh_public_key(found[2]).line] = names.machine_uuid(found[1])
            except InvalidValue:
                continue
    return holders


def _content(configuration: StorageConfig, static: bytes, admitted: Sequence[Admitted]) -> bytes:
    lines = [_MARK.decode(), *(line(configuration, machine) for machine in admitted)]
    separator = b"" if not static or static.endswith(b"\n") else b"\n"
    return static + separator + "\n".join(lines).encode() + b"\n"


def _holders(current: bytes) -> dict[str, str]:
    """Return the UUID of each key in the lines that Turku wrote below its mark."""
    _, mark, ours = current.rpartition(_MARK)
    holders: dict[str, str] = {}
    for text in ours.decode("utf-8", "replace").splitlines() if mark else ():
        # Key and UUID are at the end, so quotes and blanks in the command do not matter.
        *_, kind, blob, comment = ["", "", "", *text.rsplit(maxsplit=3)]
        if comment.startswith("turku:"):
            holders[f"{kind} {blob}"] = comment.removeprefix("turku:")
    return holders


def _refuse_loss(configuration: SshConfig, current: bytes) -> None:
    if _MARK in current:
        return
    commands = (_V1_COMMAND, configuration.authorized_keys_command.encode())
    foreign = [
        text
        for text in current.splitlines()
        if text.strip()
        and not text.lstrip().startswith(b"#")
        and not (b'command="' in text and any(command in text for command in commands))
    ]
    if foreign:
        path = configuration.authorized_keys_file
        # Not kept without asking: the existing system let machines put whole lines into this file.
        raise ConfigurationError(
            f"{path} has {len(foreign)} line{'s' if len(foreign) > 1 else ''} that Turku did not write",
            hint=f"put the lines that are to be kept into {path}.static (an empty file if none), then run again",
        )


def _make_parent(directory: Path, owner: tuple[int, int] | None) -> None:
    try:
        is_there = directory.exists()
    except PermissionError as error:
        raise ConfigurationError(
            f"authorized_keys_file: {directory} cannot be reached by the user whose keys these are",
            hint="a directory above it is closed to that user: open it with chmod a+x, or name another file",
        ) from error
    if not is_there:
        durable.make_private_directory(directory)
        if owner is not None:
            os.chown(directory, *owner)
        return
    if stat.S_IMODE(directory.stat().st_mode) & (stat.S_IWGRP | stat.S_IWOTH):
        _LOG.warning("%s can be written by others than its owner: sshd refuses the keys in it", directory)


def _read(path: Path) -> bytes | None:
    """Return the content of the file, or None if it is missing.

    A link is not followed, as it might lead where only root may read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be read: {error.strerror}",
            hint="it must be a plain file, not a symbolic link, that this user may read",
        ) from error
    with os.fdopen(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise ConfigurationError(f"{path} is not a regular file")
        content = stream.read(_FILE_LIMIT_BYTES + 1)
    if len(content) > _FILE_LIMIT_BYTES:
        raise ConfigurationError(f"{path} is larger than {_FILE_LIMIT_BYTES} bytes")
    return content


def _is_as_sshd_wants(path: Path, owner: tuple[int, int] | None) -> bool:
    status = path.stat()
    uid = os.geteuid() if owner is None else owner[0]
    return stat.S_IMODE(status.st_mode) == _FILE_MODE and status.st_uid == uid
