"""A storage at the orders of a compromised coordinator, and a machine with real sources that it may back up.

with ordered_storage(directory, {"etc": path}) as storage:
    storage.admit()                          the machine's key goes into authorized_keys
    output = storage.session({"etc": {...}}) the output of a checkin for which these sources are due
    storage.host, storage.api, storage.uuid, storage.key, storage.machine_dir, storage.reports
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.hostile_api import HostileApi
from tests.support.rsyncd import Rsyncd
from tests.support.sshd import free_port
from tests.support.storage_host import StorageHost

UUID = "9bef0a75-5a9b-43f7-a66a-7e8c6d7ad91d"
ADDRESS = {
    "name": "primary",
    "ssh_ping_host": "127.0.0.1",
    "ssh_ping_host_keys": [],
    "ssh_ping_port": 22,
    "ssh_ping_user": "root",
}


def order(**options: Any) -> dict[str, Any]:
    """S of the contract, as the hostile API sends it."""
    return {"path": "/etc", "storage": ADDRESS, "retention": "last 1000 snapshots", **options}


@dataclass
class OrderedStorage:
    host: StorageHost
    api: HostileApi
    daemon: Rsyncd
    key: Path
    uuid: str = UUID

    @property
    def public_key(self) -> str:
        return Path(f"{self.key}.pub").read_text().strip()

    @property
    def machine_dir(self) -> Path:
        return self.host.volume / self.uuid

    @property
    def reports(self) -> dict[str, Any]:
        """Source to what was reported of it last."""
        reports: dict[str, Any] = {}
        for message in self.api.of_call("storage_ping_source_update"):
            reports.update(message["machine"]["sources"])
        return reports

    def admit(self) -> None:
        self.api.answers["storage_update_config"] = {"machines": {self.uuid: {"ssh_public_key": self.public_key}}}
        self.host.update_config()

    def admit_with(self, other: str) -> None:
        """Do as ``admit``, with the key of a machine ``other`` too. The source ``etc`` is due."""
        other_key = Path(f"{self.host.sshd.new_key('victim')}.pub").read_text()
        keys = {self.uuid: self.public_key, other: other_key}
        machines = {uuid: {"ssh_public_key": key} for uuid, key in keys.items()}
        self.api.answers["storage_update_config"] = {"machines": machines}
        self.api.answers["storage_ping_checkin"] = {
            "machine": {"uuid": self.uuid, "scheduled_sources": {"etc": order()}}
        }
        self.host.update_config()

    def session(self, orders: Mapping[str, Any], *, offered: Any = None, **machine: Any) -> str:
        """Return the output of a checkin that offers all that is due (or ``offered``)."""
        self.api.answers["storage_ping_checkin"] = {
            "machine": {"uuid": self.uuid, "scheduled_sources": orders, **machine}
        }
        port = free_port()
        credentials = {"username": self.daemon.username, "password": self.daemon.password}
        request = {
            "verbose": True,
            "action": "checkin",
            "port": port,
            "sources": dict.fromkeys(offered or orders, credentials),
        }
        with self.host.session(self.key, "-R", f"{port}:127.0.0.1:{self.daemon.port}", request=request) as side:
            side.wait(60)
            return side.output


@contextmanager
def ordered_storage(directory: Path, sources: Mapping[str, Path]) -> Iterator[OrderedStorage]:
    with (
        HostileApi() as api,
        StorageHost(directory / "storage", api_url=api.url, api_auth="SECRET") as host,
        Rsyncd(directory / "rsyncd", sources) as daemon,
    ):
        yield OrderedStorage(host, api, daemon, host.sshd.new_key("machine"))
