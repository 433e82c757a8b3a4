"""The snippets for sudo and sshd, tried with visudo and sshd before they take effect."""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from turku.core.setup.host import Host
from turku.core.setup.host_files import HostFile
from turku.core.setup.step import FileStep, Step, host_file_step
from turku.errors import CommandFailed, TurkuError

SUDOERS: Final = HostFile("turku.storage", "sudoers", "turku-storage")
SSHD: Final = HostFile("turku.storage", "sshd", "turku-storage.conf")
_PRIVILEGE_SEPARATION: Final = Path("/run/sshd")


def steps(host: Host, program: str, *, user: str) -> list[Step]:
    """Return the steps that let machines log in as ``user`` and start a session, and nothing else."""
    return [
        replace(
            _file_step(SUDOERS, host, program),
            purpose=f"{user} may start sessions as root, and nothing else",
            check_content=try_sudoers,
        ),
        replace(
            _file_step(SSHD, host, program),
            purpose=f"{user} only gets a tunnel, and sshd asks this storage about new machines",
            check_host=_try_sshd(user),
        ),
    ]


def try_sudoers(host: Host, content: bytes) -> None:
    """Raise CommandFailed for a snippet that sudo does not take. A broken one would lock everybody out of sudo."""
    with tempfile.NamedTemporaryFile(prefix="turku-sudoers-") as file:
        file.write(content)
        file.flush()
        host.run(["visudo", "-cf", file.name])


def sshd_settings(host: Host, user: str) -> dict[str, str]:
    """Return the settings of the system's sshd for a user. Raises CommandFailed."""
    ended = host.run([*_sshd(host), "-T", "-C", f"user={user},host=localhost,addr=127.0.0.1"])
    lines = ended.stdout.decode("utf-8", "replace").splitlines()
    # Of several ports, machines get the first one.
    return dict(reversed([line.split(" ", 1) for line in lines if " " in line]))


def _file_step(file: HostFile, host: Host, program: str) -> FileStep:
    step = host_file_step(file, host, program)
    if step is None:
        raise AssertionError(f"{file.name} is in a place of packages")
    return step


def _try_sshd(user: str) -> Callable[[Host], None]:
    def check(host: Host) -> None:
        try:
            host.run([*_sshd(host), "-t"])
            settings = sshd_settings(host, user)
        except CommandFailed as error:
            raise error.with_hint(
                f"{SSHD.place} was taken back, and sshd was not reloaded; what is wrong in sshd's configuration?"
            ) from None
        if "authorized-keys" not in settings.get("authorizedkeyscommand", ""):
            raise TurkuError(
                f"sshd does not read {SSHD.place}, or another rule for {user} comes first",
                hint=f"put 'Include {SSHD.place.parent}/*.conf' at the top of /etc/ssh/sshd_config, and run this again",
            )

    return check


def _sshd(host: Host) -> list[str]:
    directory = host.path(_PRIVILEGE_SEPARATION)
    if directory.parent.is_dir():
        # Without it sshd does not even check its configuration. Its unit makes it when sshd starts.
        directory.mkdir(mode=0o755, exist_ok=True)
    # sshd insists on its absolute path.
    return [host.find_program("sshd") or "/usr/sbin/sshd"]
