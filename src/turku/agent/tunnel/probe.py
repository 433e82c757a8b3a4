"""A log-in to a storage that starts nothing there. It shows that the storage is reachable and lets this machine in."""

import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from turku.agent.config.model import AgentConfig
from turku.agent.identity import key_pair
from turku.agent.state import var_dir
from turku.agent.tunnel import ssh_messages, ssh_tunnel
from turku.agent.tunnel.trusted_storages import Address
from turku.core import command

_TIMEOUT_SECONDS = 45.0
_POLL_SECONDS = 0.05
_AUTHENTICATED = "Authenticated to "


def log_in(agent: AgentConfig, address: Address) -> None:
    """Log in at a storage with the host keys of the address, and end the connection.

    Raises StorageUnreachable, HostKeyRefused, NotAdmitted, CommandFailed (ssh cannot be started).
    """
    is_let_in = threading.Event()

    def on_line(line: str) -> None:
        if line.startswith(_AUTHENTICATED):
            is_let_in.set()

    with TemporaryDirectory(prefix="probe-", dir=var_dir.runtime_directory(agent.state)) as directory:
        known_hosts = var_dir.write_private(Path(directory) / "known_hosts", ssh_tunnel.known_hosts_text(address))
        argv = ssh_tunnel.ssh_arguments(
            agent,
            address,
            key=key_pair.private_key_path(agent.state),
            previous_keys=key_pair.previous_keys(agent.state),
            known_hosts=known_hosts,
            port=None,
            is_probe=True,
        )
        deadline = time.monotonic() + _TIMEOUT_SECONDS
        with command.start(argv, on_line=on_line) as ssh:
            while not is_let_in.is_set() and ssh.poll() is None and time.monotonic() < deadline:
                is_let_in.wait(_POLL_SECONDS)
            if ssh.poll() is not None:
                ssh.wait(1)
            if not is_let_in.is_set():
                raise ssh_messages.failure(address, ssh.last_lines)
