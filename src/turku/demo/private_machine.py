"""A private machine: an agent with configuration, identity and state in one directory."""

import grp
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from turku.core import command, durable
from turku.demo import programs
from turku.demo.private_sshd import user_name

LOCAL_ADDRESS = "127.0.0.2"
"""Address of the machine's rsyncd. All of 127.0.0.0/8 is loopback."""


class PrivateMachine:
    """An agent, which ``update_config`` registers. ``configuration`` overrides the keys that make it private."""

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
                # Storage and machine are one host here. The tunnel ends at 127.0.0.1, so rsyncd needs another address.
                "rsyncd_local_address": LOCAL_ADDRESS,
                # Files are read and restored as the present user, who need not be root.
                "rsyncd_user": user_name(),
                "rsyncd_group": "*" if os.geteuid() == 0 else grp.getgrgid(os.getegid()).gr_name,
                **(configuration or {}),
            },
        )

    @property
    def uuid(self) -> str:
        """UUID that the agent gave itself when it registered."""
        content = json.loads((self.var_dir / "config.d" / "10-machine_uuid.json").read_text())
        return str(content["machine_uuid"])

    def declare(self, sources: Mapping[str, Mapping[str, Any]]) -> None:
        """Write ``sources.d`` with these sources only."""
        durable.write_json(self.config_dir / "sources.d" / "sources.json", sources)

    def update_config(self) -> command.CompletedProgram:
        """Register, or update the coordinator."""
        return programs.run("turku-update-config", "--config-dir", self.config_dir)

    def ping(self, *arguments: str, check: bool = True) -> command.CompletedProgram:
        """Check in, and back up all sources that are due."""
        return programs.run(
            *("turku-agent-ping", "--config-dir", str(self.config_dir), *arguments),
            expected_codes=(0,) if check else range(256),
        )
