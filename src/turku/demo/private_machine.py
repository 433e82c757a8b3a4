"""A machine of one's own: an agent with configuration, identity and state in one directory."""

from __future__ import annotations

import grp
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from turku.core import command, durable
from turku.core.clock import SYSTEM_CLOCK
from turku.core.secret import Secret
from turku.demo import programs
from turku.demo.private_sshd import user_name
from turku.errors import CommandFailed

LOCAL_ADDRESS = "127.0.0.2"
"""Where the machine's rsyncd listens; all of 127.0.0.0/8 is loopback."""
_RESTORE_TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True)
class RestoreMode:
    """What the agent says while its restore mode is on: how the storage's operator reaches this machine."""

    lines: tuple[str, ...]
    password: Secret
    address: str

    def send(self, tree: Path, *options: str, path: str = "") -> command.Completed:
        """Do as the operator does on the storage: let rsync send ``path`` below ``tree``, or all of it."""
        # A storage without root keeps owners, special files and links in attributes of files; rsync reads them there.
        stored = () if os.geteuid() == 0 else ("--fake-super",)
        return command.run(
            ["rsync", "-a", "--numeric-ids", "--relative", *stored, *options, f"{tree}/./{path}", self.address],
            timeout_seconds=programs.TIMEOUT_SECONDS,
            extra_environment={"RSYNC_PASSWORD": self.password.reveal()},
        )


class PrivateMachine:
    """An agent's side of things; ``update_config`` registers it. ``configuration`` is laid over the private keys."""

    def __init__(
        self,
        directory: Path,
        *,
        unit_name: str,
        api_url: str,
        api_auth: str,
        configuration: Mapping[str, Any] | None = None,
    ) -> None:
        self.directory = directory
        self.unit_name = unit_name
        self.config_dir = directory / "etc"
        self.var_dir = directory / "state"
        self.restore_path = directory / "restore"
        durable.make_private_directory(self.config_dir / "config.d")
        durable.make_private_directory(self.config_dir / "sources.d")
        durable.write_json(
            self.config_dir / "config.d" / "agent.json",
            {
                "api_url": api_url,
                "api_auth": api_auth,
                "unit_name": unit_name,
                "var_dir": str(self.var_dir),
                "lock_dir": str(directory / "lock"),
                "restore_path": str(self.restore_path),
                # Storage and machine are one host here: the tunnel's end is at 127.0.0.1, so rsyncd is elsewhere.
                "rsyncd_local_address": LOCAL_ADDRESS,
                # Files are read and restored as the user we are, which need not be root.
                "rsyncd_user": user_name(),
                "rsyncd_group": "*" if os.geteuid() == 0 else grp.getgrgid(os.getegid()).gr_name,
                **(configuration or {}),
            },
        )

    @property
    def uuid(self) -> str:
        """The identity the agent gave itself when it registered."""
        content = json.loads((self.var_dir / "config.d" / "10-machine_uuid.json").read_text())
        return str(content["machine_uuid"])

    def declare(self, sources: Mapping[str, Mapping[str, Any]]) -> None:
        """Write ``sources.d`` so that it names these sources and no others."""
        durable.write_json(self.config_dir / "sources.d" / "sources.json", sources)

    def update_config(self) -> command.Completed:
        """Register, or tell the coordinator what is new."""
        return programs.run("turku-update-config", "--config-dir", self.config_dir)

    def ping(self, *arguments: str, check: bool = True) -> command.Completed:
        """Ask whether anything is due, and have it backed up."""
        return programs.run(
            *("turku-agent-ping", "--config-dir", str(self.config_dir), *arguments),
            expected_codes=(0,) if check else range(256),
        )

    @contextmanager
    def restore_mode(self, *arguments: str) -> Iterator[RestoreMode]:
        """The agent's restore mode, on for the length of the block."""
        lines: list[str] = []
        program = programs.DIRECTORY / "turku-agent-ping"
        with command.start(
            [program, "--config-dir", self.config_dir, "--restore", *arguments], on_line=lines.append
        ) as child:
            deadline = SYSTEM_CLOCK.monotonic_seconds() + _RESTORE_TIMEOUT_SECONDS
            while (told := _restore_mode(lines)) is None:
                if child.poll() is not None or SYSTEM_CLOCK.monotonic_seconds() > deadline:
                    raise CommandFailed(
                        "turku-agent-ping --restore did not get as far as restore mode", details="\n".join(lines)
                    )
                SYSTEM_CLOCK.sleep(0.02)
            yield told


def _restore_mode(lines: list[str]) -> RestoreMode | None:
    """What there is to know, once the agent said all of it: what it prints and what it logs come in any order."""
    text = "\n".join(lines)
    password = re.search(r"RSYNC_PASSWORD=(\S+) rsync ", text)
    address = re.search(r"^ +(rsync://\S+)$", text, re.MULTILINE)
    if not (password and address and "Restore mode active" in text):
        return None
    return RestoreMode(tuple(lines), Secret(password[1]), address[1])
