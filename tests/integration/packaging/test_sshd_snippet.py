"""The sshd snippet, included by a real sshd as in sshd_config.d: a machine's key gets a loopback tunnel and nothing else.

The key's line in authorized_keys has no options here, so that it is the snippet that refuses.
"""

import getpass
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.support import host_snippets
from tests.support.sshd import Sshd, free_port

from turku.core import command

WANTED = {
    "allowtcpforwarding": "remote",
    "permitlisten": "localhost:*",
    "permitopen": "none",
    "gatewayports": "no",
    "allowstreamlocalforwarding": "no",
    "allowagentforwarding": "no",
    "x11forwarding": "no",
    "permittunnel": "no",
    "permittty": "no",
    "permituserrc": "no",
    "passwordauthentication": "no",
    "kbdinteractiveauthentication": "no",
    "authenticationmethods": "publickey",
    "maxsessions": "1",
    "clientaliveinterval": "60",
    "clientalivecountmax": "3",
}


def effective(configuration: Path, user: str) -> dict[str, str]:
    """Return sshd's effective configuration for a user."""
    printed = command.run(
        ["/usr/sbin/sshd", "-T", "-f", configuration, "-C", f"user={user},host=example.com,addr=192.0.2.1"],
        timeout_seconds=20,
    ).stdout.decode()
    return dict(line.split(" ", 1) for line in printed.splitlines() if " " in line)


@dataclass
class Storage:
    """An sshd with the snippet, and a key that it admits."""

    sshd: Sshd
    key: Path

    def ssh(self, *options: str, script: str = "true") -> command.CompletedProgram:
        return command.run(
            self.sshd.client(self.key, "-o", "ExitOnForwardFailure=yes", *options, command=(script,)),
            timeout_seconds=30,
            check=False,
        )


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storage]:
    directory = tmp_path_factory.mktemp("sshd")
    snippet = directory / "turku-storage.conf"
    snippet.write_text(host_snippets.sshd().replace("Match User turku-storage", f"Match User {getpass.getuser()}"))
    authorized_keys = directory / "authorized_keys"
    with Sshd(directory / "sshd", authorized_keys=authorized_keys, extra_lines=[f"Include {snippet}"]) as sshd:
        key = sshd.new_key("machine")
        authorized_keys.write_text(key.with_suffix(".pub").read_text())
        yield Storage(sshd, key)


@pytest.fixture
def as_delivered(tmp_path: Path) -> Path:
    """An sshd_config that includes the snippet as it is."""
    command.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "host_key"], timeout_seconds=20)
    configuration = tmp_path / "sshd_config"
    snippet = tmp_path / "turku-storage.conf"
    snippet.write_text(host_snippets.sshd())
    configuration.write_text(f"Include {snippet}\nHostKey {tmp_path}/host_key\nX11Forwarding yes\n")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    return configuration


def test_sshd_takes_the_snippet_as_it_is(as_delivered: Path) -> None:
    command.run(["/usr/sbin/sshd", "-t", "-f", as_delivered], timeout_seconds=20)


def test_it_holds_for_turku_storage_and_for_nobody_else(as_delivered: Path) -> None:
    restricted = effective(as_delivered, "turku-storage")
    assert {name: restricted[name] for name in WANTED} == WANTED
    other = effective(as_delivered, "somebody")
    assert (other["allowtcpforwarding"], other["permittty"], other["x11forwarding"]) == ("yes", "yes", "yes")


def test_a_machine_s_tunnel_listens_on_loopback(storage: Storage) -> None:
    port = free_port()
    done = storage.ssh("-R", f"{port}:127.0.0.1:9", script=f"cat /proc/net/tcp; echo {port:04X}")
    assert done.exit_code == 0, done.last_lines
    assert f" 0100007F:{port:04X} " in done.stdout.decode()
    assert f" 00000000:{port:04X} " not in done.stdout.decode()


@pytest.mark.parametrize("address", ["0.0.0.0", "*", "192.0.2.1", "example.com"])
def test_a_tunnel_that_would_listen_elsewhere_is_refused(storage: Storage, address: str) -> None:
    done = storage.ssh("-R", f"{address}:{free_port()}:127.0.0.1:9")
    assert done.exit_code == 255
    assert any("remote port forwarding failed" in line for line in done.last_lines)


def test_a_unix_socket_is_not_forwarded(storage: Storage, tmp_path: Path) -> None:
    done = storage.ssh("-R", f"{tmp_path}/socket:127.0.0.1:9")
    assert done.exit_code == 255
    assert not (tmp_path / "socket").exists()


def test_nothing_is_reached_from_the_storage(storage: Storage) -> None:
    done = command.run(
        storage.sshd.client(storage.key, "-W", f"127.0.0.1:{storage.sshd.port}"), timeout_seconds=30, check=False
    )
    assert done.exit_code != 0
    assert b"SSH-" not in done.stdout
    assert any("administratively prohibited" in line or "refused" in line for line in done.last_lines)


def test_there_is_no_terminal(storage: Storage) -> None:
    done = storage.ssh("-tt", script="tty")
    assert any("PTY allocation request failed" in line for line in done.last_lines)
    assert b"/dev/" not in done.stdout
