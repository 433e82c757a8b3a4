"""The roles of ``packaging/ansible``, run on hosts of a test.

    recap = run_playbook(SITE, {"turku_machines": [host]}, variables={...})
    recap.changed       {"web-0": 7}

Ansible's own ssh connection carries it, with a program in the place of ssh that enters the container: hosts of a test need
neither sshd nor a key. Ansible is that of ``make ansible``, in .cache/ansible.
"""

import json
import os
import shlex
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from tests.support.markdown import REPOSITORY

ROLES: Final = REPOSITORY / "packaging" / "ansible"
SITE: Final = ROLES / "site.yml"
_PROGRAMS: Final = REPOSITORY / ".cache" / "ansible" / "bin"


class AnsibleTarget(Protocol):
    """A host of a test: a name, and the words of this computer that run a shell script there as root."""

    name: str

    def arguments(self, script: str) -> list[str]: ...


@dataclass(frozen=True)
class Recap:
    """The numbers of tasks that changed each host, and all that Ansible printed."""

    changed: Mapping[str, int]
    output: str


class PlaybookFailed(AssertionError):
    """A task failed on a host, or a host was not reached."""


def run_playbook(
    playbook: Path,
    groups: Mapping[str, Sequence[AnsibleTarget]],
    *,
    variables: Mapping[str, Any],
    is_check: bool = False,
    timeout_seconds: float = 600,
) -> Recap:
    """Run a playbook on the hosts, by groups. ``is_check`` changes nothing. Raises PlaybookFailed."""
    with tempfile.TemporaryDirectory(prefix="turku-ansible-") as scratch:
        directory = Path(scratch)
        inventory = {
            group: {"hosts": {host.name: _connection(host, directory) for host in hosts}}
            for group, hosts in groups.items()
        }
        (directory / "inventory.json").write_text(json.dumps(inventory))
        # A file, because a list of processes shows arguments.
        (directory / "variables.json").write_text(json.dumps(dict(variables)))
        done = subprocess.run(
            [
                *(_PROGRAMS / "ansible-playbook", "--inventory", directory / "inventory.json"),
                *("--extra-vars", f"@{directory / 'variables.json'}", *(["--check", "--diff"] if is_check else [])),
                playbook,
            ],
            env={
                **{name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ},
                "LC_ALL": "C.UTF-8",
                "ANSIBLE_ROLES_PATH": str(ROLES / "roles"),
                "ANSIBLE_HOME": str(directory / "home"),
                "ANSIBLE_NOCOLOR": "1",
                "ANSIBLE_HOST_KEY_CHECKING": "0",
                "ANSIBLE_STDOUT_CALLBACK": "default",
            },
            cwd=directory,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            timeout=timeout_seconds,
            check=False,
        )
    if done.returncode:
        raise PlaybookFailed(f"ansible-playbook ended with {done.returncode}:\n{done.stdout}")
    return Recap(_changed(done.stdout), done.stdout)


def _connection(host: AnsibleTarget, directory: Path) -> dict[str, Any]:
    # ssh's last argument is the command line for the shell of the host.
    program = directory / f"ssh-{host.name}"
    program.write_text(f'#!/bin/bash\nexec {shlex.join(host.arguments("")[:-1])} "${{!#}}"\n')
    program.chmod(0o700)
    return {
        "ansible_connection": "ssh",
        "ansible_become": False,
        "ansible_ssh_executable": str(program),
        "ansible_ssh_transfer_method": "piped",
        "ansible_ssh_args": "",
        "ansible_python_interpreter": "/usr/bin/python3",
        "ansible_remote_tmp": "/root/.ansible/tmp",
    }


def _changed(output: str) -> dict[str, int]:
    """Return the numbers of changes in the recap at the end of the output."""
    changed = {}
    for line in output.rpartition("PLAY RECAP")[2].splitlines()[1:]:
        name, _colon, numbers = line.partition(":")
        found = dict(each.split("=") for each in numbers.split())
        if "changed" in found:
            changed[name.strip()] = int(found["changed"])
    return changed
