"""A private sshd on a free loopback port (the demo's), with what a test needs to be its client.

    with Sshd(directory, authorized_keys=path, extra_lines=["AllowTcpForwarding remote"]) as sshd:
        sshd.port             the port on 127.0.0.1
        sshd.user             the name to log in with: the user who runs the tests
        sshd.host_keys        ["ssh-ed25519 AAAA..."]: for ssh_ping_host_keys
        sshd.known_hosts      a known-hosts file with exactly those keys
        sshd.new_key("name")  the path of a fresh client key, its public half beside it as NAME.pub
        sshd.client(key, "-R", "...", command=("true",))  an ssh argument list: BatchMode, strict checking, no agent
        sshd.last_lines       the last lines of sshd's log (LogLevel VERBOSE)

``directory`` is made (0700) and holds host keys and configuration. ``authorized_keys`` may be written later and
rewritten at any time: sshd reads it at each login. StrictModes is off, because test directories lie below /tmp.
``path`` is the PATH of the forced commands (default: ours, with the programs of this virtual environment first).
"""

from collections.abc import Sequence
from pathlib import Path

from turku.demo.private_sshd import PrivateSshd, generate_key
from turku.demo.programs import free_port

__all__ = ["Sshd", "free_port"]


class Sshd(PrivateSshd):
    """A running sshd, as a context manager."""

    @property
    def host_keys(self) -> list[str]:
        kind, key, *_ = self.host_key.read_text().split()
        return [f"{kind} {key}"]

    @property
    def known_hosts(self) -> Path:
        path = self.directory / "known_hosts"
        content = "".join(f"[127.0.0.1]:{self.port} {key}\n" for key in self.host_keys)
        # Another ssh may be reading it.
        if not path.exists() or path.read_text() != content:
            path.write_text(content)
        return path

    def new_key(self, name: str) -> Path:
        """The path of a new ed25519 client key."""
        path = self.directory / name
        generate_key(path)
        return path

    def client(self, key: Path, *options: str, command: Sequence[str] = ()) -> list[str]:
        """The argument list of an ssh to this sshd."""
        return [
            "ssh",
            *("-F", "none", "-i", str(key), "-p", str(self.port), "-l", self.user),
            *("-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none"),
            *("-o", "StrictHostKeyChecking=yes", "-o", f"UserKnownHostsFile={self.known_hosts}"),
            *("-o", "GlobalKnownHostsFile=/dev/null", "-o", "ConnectTimeout=10"),
            *options,
            "127.0.0.1",
            *command,
        ]
