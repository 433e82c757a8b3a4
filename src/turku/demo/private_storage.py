"""A private storage: configuration, volume and state in one directory, reached through a private sshd."""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from turku.core import command, durable
from turku.demo import programs
from turku.demo.private_sshd import PrivateSshd
from turku.storage.config.model import LimitsConfig
from turku.storage.containment import bubblewrap


def missing_sandbox() -> str | None:
    """Return why rsync cannot be contained here although a storage of this user would insist on it, or None."""
    if os.geteuid() != 0:
        return None
    found = bubblewrap.sandbox_availability(LimitsConfig())
    return None if found.is_used else found.reason


class PrivateStorage:
    """A storage with a running sshd, which ``update_config`` registers.

    ``configuration`` overrides the keys that make it private.
    """

    def __init__(
        self,
        directory: Path,
        *,
        name: str,
        api_url: str,
        api_auth: str,
        sshd: PrivateSshd,
        configuration: Mapping[str, Any] | None = None,
    ) -> None:
        self.directory = directory
        self.name = name
        self.config_dir = directory / "etc"
        self.var_dir = directory / "state"
        self.volume = directory / "volume"
        self.log_file = directory / "storage.log"
        self.lacks_sandbox = missing_sandbox()
        durable.make_private_directory(self.volume)
        durable.make_private_directory(self.config_dir / "config.d")
        durable.write_json(
            self.config_dir / "config.d" / "storage.json",
            {
                "name": name,
                "api_url": api_url,
                "api_auth": api_auth,
                # The storage must take machines, however full the disk is.
                "volumes": {"volume": {"path": str(self.volume), "accept_new_high_water_pct": 100}},
                "ssh_ping_host": "127.0.0.1",
                "ssh_ping_port": sshd.port,
                "ssh_ping_user": sshd.user,
                "ssh_ping_host_keys_glob": str(sshd.host_key),
                "authorized_keys_file": str(sshd.authorized_keys),
                "authorized_keys_command": shlex.join(
                    [str(programs.DIRECTORY / "turku-storage-ping"), "--config-dir", str(self.config_dir)]
                ),
                "low_water_free_pct": 0,
                "var_dir": str(self.var_dir),
                "lock_dir": str(directory / "lock"),
                "log_file": str(self.log_file),
                **({} if self.lacks_sandbox is None else {"sandbox": "off"}),
                **(configuration or {}),
            },
        )

    def update_config(self) -> command.CompletedProgram:
        """Register, or update the coordinator, and write the machines' keys."""
        return programs.run("turku-storage-update-config", "--config-dir", self.config_dir)

    def machine_directory(self, uuid: str) -> Path:
        """Return the directory of the machine's trees and snapshots."""
        return self.var_dir / "machines" / uuid

    def snapshots(self, uuid: str, source: str) -> list[Path]:
        """Return the snapshots of a source, oldest first."""
        directory = self.machine_directory(uuid) / f"{source}.snapshots"
        if not directory.is_dir():
            return []
        latest = directory / "latest"
        return sorted(
            entry for entry in directory.iterdir() if entry.is_dir() and entry != latest and entry.name[0] != "."
        )
