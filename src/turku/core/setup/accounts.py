"""The step that creates the user of a program, as the program's file for systemd-sysusers declares it."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from turku.core.setup import host_files
from turku.core.setup.host import Host
from turku.core.setup.host_files import HostFile
from turku.core.setup.record import Kind, Made, Record
from turku.core.setup.step import DONE, Finding, State, Step, host_file_step
from turku.errors import ConfigurationError

_NO_PASSWORD = "*"  # noqa: S105  (the field of a user who has none)


class DeclaredUser(NamedTuple):
    """A user, as a line of sysusers.d declares it."""

    name: str
    comment: str
    home: str
    shell: str


def declared_user(file: HostFile) -> DeclaredUser:
    """Return the one user that a file for systemd-sysusers declares."""
    for line in file.content(Path("/usr/bin")).decode().splitlines():
        words = shlex.split(line, comments=True)
        if words and words[0].startswith("u"):
            return DeclaredUser(words[1], words[3], words[4], words[5])
    raise AssertionError(f"{file.name} declares no user")


def user_of(package: str) -> str:
    """Return the name of the user that the program's file for systemd-sysusers declares."""
    [file] = host_files.all_of(package, "sysusers.d")
    return declared_user(file).name


@dataclass(frozen=True)
class UserStep(Step):
    """A system user with its group. With ``logs_in``, sshd lets it in by key whatever PAM says about its password."""

    file: HostFile
    purpose: str
    logs_in: bool = False

    @property
    def title(self) -> str:  # type: ignore[override]  # computed, not stored
        return f"create the user {declared_user(self.file).name} ({self.purpose})"

    def find(self, host: Host, record: Record) -> Finding:  # noqa: ARG002  (one that is there is used in any case)
        wanted = declared_user(self.file)
        found = host.account(wanted.name)
        if found is None:
            return Finding(State.NEEDED)
        if found.uid == 0:
            raise ConfigurationError(f"the user {wanted.name} of this host is another name of root")
        if self.logs_in and re.search(r"/(nologin|false)$", found.shell):
            return Finding(State.KEPT, f"it is there, and its shell {found.shell} lets nobody in: chsh -s /bin/sh")
        return DONE

    def apply(self, host: Host, record: Record) -> None:
        wanted = declared_user(self.file)
        record.add(Made(Kind.USER, wanted.name))
        if host.find_program("systemd-sysusers"):
            self._by_sysusers(host)
        elif host.find_program("useradd"):
            host.run(
                [
                    *("useradd", *_root_option(host), "--system", "--user-group", "--no-create-home"),
                    *("--home-dir", wanted.home, "--shell", wanted.shell, "--comment", wanted.comment, wanted.name),
                ]
            )
        else:
            host.run(
                [
                    *("adduser", "--system", "--group", "--no-create-home", "--home", wanted.home),
                    *("--shell", wanted.shell, "--gecos", wanted.comment, wanted.name),
                ]
            )
        if self.logs_in and host.find_program("usermod"):
            # Without UsePAM, sshd takes a password field that begins with "!" for a locked account.
            host.run(["usermod", *_root_option(host), "--password", _NO_PASSWORD, wanted.name])

    def _by_sysusers(self, host: Host) -> None:
        option = [] if host.is_this_one else [f"--root={host.root}"]
        host.run(["systemd-sysusers", *option, self.file.name])


def user_steps(package: str, host: Host, program: str, *, purpose: str, logs_in: bool = False) -> list[Step]:
    """Return the steps that create the user that the program's file for systemd-sysusers declares."""
    [file] = host_files.all_of(package, "sysusers.d")
    steps: list[Step] = []
    installs = host_file_step(file, host, program) if host.find_program("systemd-sysusers") else None
    if installs is not None:
        steps.append(installs)
    return [*steps, UserStep(file, purpose, logs_in=logs_in)]


def _root_option(host: Host) -> list[str]:
    return [] if host.is_this_one else ["--root", str(host.root)]
