"""The agent's restore mode, as an operator uses it: the machine opens itself, and the storage's side sends.

with restore_mode(machine) as mode:
    mode.send(snapshot)
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from turku.core import command
from turku.core.clock import SYSTEM_CLOCK
from turku.core.secret import Secret
from turku.demo import programs
from turku.demo.private_machine import PrivateMachine
from turku.errors import CommandFailed

_RESTORE_TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True)
class RestoreMode:
    """The agent's output while its restore mode is on: the way for the storage's operator to reach this machine."""

    lines: tuple[str, ...]
    password: Secret
    address: str

    def send(self, tree: Path, *options: str, path: str = "") -> command.CompletedProgram:
        """Do as the operator does on the storage: let rsync send ``path`` below ``tree``, or all of it."""
        # A storage without root keeps owners, special files and links in attributes of files. Rsync reads them there.
        stored = () if os.geteuid() == 0 else ("--fake-super",)
        return command.run(
            ["rsync", "-a", "--numeric-ids", "--relative", *stored, *options, f"{tree}/./{path}", self.address],
            timeout_seconds=programs.TIMEOUT_SECONDS,
            extra_environment={"RSYNC_PASSWORD": self.password.reveal()},
        )


@contextmanager
def restore_mode(machine: PrivateMachine, *arguments: str) -> Iterator[RestoreMode]:
    """The agent's restore mode, on for the length of the block."""
    lines: list[str] = []
    program = programs.DIRECTORY / "turku-agent-ping"
    with command.start(
        [program, "--config-dir", machine.config_dir, "--restore", *arguments], on_line=lines.append
    ) as child:
        deadline = SYSTEM_CLOCK.monotonic_seconds() + _RESTORE_TIMEOUT_SECONDS
        while (mode := _restore_mode(lines)) is None:
            if child.poll() is not None or SYSTEM_CLOCK.monotonic_seconds() > deadline:
                raise CommandFailed(
                    "turku-agent-ping --restore did not get as far as restore mode", details="\n".join(lines)
                )
            SYSTEM_CLOCK.sleep(0.02)
        yield mode


def _restore_mode(lines: list[str]) -> RestoreMode | None:
    """Return the facts once the agent gave all of them: its output and its log lines come in any order."""
    text = "\n".join(lines)
    password = re.search(r"RSYNC_PASSWORD=(\S+) rsync ", text)
    address = re.search(r"^ +(rsync://\S+)$", text, re.MULTILINE)
    if not (password and address and "Restore mode active" in text):
        return None
    return RestoreMode(tuple(lines), Secret(password[1]), address[1])
