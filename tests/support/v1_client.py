"""The client side of the wire protocol, written from the contract alone and sharing no code with Turku.

``post`` is how a message travels: call name and message in, status and decoded answer out. Answers are indexed by key
without checking first, as existing agents and storages do, so that a missing key fails here.
"""

import base64
import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Post = Callable[[str, Any], tuple[int, Any]]

ORDER_KEYS = {
    *("path", "retention", "bwlimit", "filter", "exclude", "shared_service", "large_rotating_files"),
    *("large_modifying_files", "snapshot_mode", "preserve_hard_links", "storage"),
}
ADDRESS_KEYS = {"name", "ssh_ping_host", "ssh_ping_host_keys", "ssh_ping_port", "ssh_ping_user"}


class Refused(Exception):
    """The API answered with another status than 200."""

    def __init__(self, status: int, answer: Any) -> None:
        super().__init__(status, answer)
        self.status = status
        self.sentence: str = answer["error"]


def ask(post: Post, call: str, message: Any) -> Any:
    """Return the answer. Raises Refused."""
    status, answer = post(call, message)
    if status != 200:
        raise Refused(status, answer)
    return answer


def ssh_key(point: bytes) -> str:
    """The well-formed ed25519 public key of that point (32 bytes), which nobody has the private part of."""
    blob = b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + point
    return f"ssh-ed25519 {base64.b64encode(blob).decode()} turku"


def new_ssh_key() -> str:
    """Another key at each call."""
    return ssh_key(os.urandom(32))


A_KEY = ssh_key(bytes(range(32)))
"""The same key in every process: parameters of tests must not differ between workers."""


@dataclass
class V1Machine:
    """An agent of the existing system."""

    post: Post
    auth: Any = None
    uuid: str = field(default_factory=lambda: str(uuid.uuid4()))
    secret: str = field(default_factory=lambda: uuid.uuid4().hex[:30])
    ssh_public_key: str = field(default_factory=new_ssh_key)
    unit_name: str = "web-0"

    def update_config(self, sources: dict[str, Any], **machine: Any) -> Any:
        message: dict[str, Any] = {
            "machine": {
                "uuid": self.uuid,
                "secret": self.secret,
                "unit_name": self.unit_name,
                "ssh_public_key": self.ssh_public_key,
                "sources": sources,
                **machine,
            }
        }
        if self.auth is not None:
            message["auth"] = self.auth
        return ask(self.post, "update_config", message)

    def due(self) -> dict[str, Any]:
        answer = ask(self.post, "agent_ping_checkin", {"machine": {"uuid": self.uuid, "secret": self.secret}})
        return _orders(answer["machine"]["scheduled_sources"])

    def restorable(self) -> dict[str, Any]:
        answer = ask(self.post, "agent_ping_restore", {"machine": {"uuid": self.uuid, "secret": self.secret}})
        return _orders(answer["machine"]["sources"])


def _orders(orders: dict[str, Any]) -> dict[str, Any]:
    for order in orders.values():
        assert set(order) >= ORDER_KEYS
        assert set(order["storage"]) >= ADDRESS_KEYS
    return orders


@dataclass
class V1Storage:
    """A storage of the existing system."""

    post: Post
    auth: Any = None
    name: str = "primary"
    secret: str = field(default_factory=lambda: uuid.uuid4().hex[:30])
    space_available: float = 500_000.5

    def update_config(self, **storage: Any) -> dict[str, Any]:
        message: dict[str, Any] = {
            "storage": {
                "name": self.name,
                "secret": self.secret,
                "ssh_ping_host": f"{self.name}.example.com",
                "ssh_ping_host_keys": [new_ssh_key()],
                "ssh_ping_port": 22,
                "ssh_ping_user": "root",
                "space_total": 1_000_000.25,
                "space_available": self.space_available,
                **storage,
            }
        }
        if self.auth is not None:
            message["auth"] = self.auth
        machines: dict[str, Any] = ask(self.post, "storage_update_config", message)["machines"]
        for machine in machines.values():
            assert set(machine) >= {"environment_name", "service_name", "unit_name", "comment", "ssh_public_key"}
        return machines

    def due(self, machine_uuid: str) -> dict[str, Any]:
        message = {"storage": {"name": self.name, "secret": self.secret}, "machine": {"uuid": machine_uuid}}
        machine = ask(self.post, "storage_ping_checkin", message)["machine"]
        assert {"uuid", "environment_name", "service_name", "unit_name"} <= set(machine)
        return _orders(machine["scheduled_sources"])

    def report(self, machine_uuid: str, sources: dict[str, Any]) -> Any:
        message = {
            "storage": {"name": self.name, "secret": self.secret},
            "machine": {"uuid": machine_uuid, "sources": sources},
        }
        return ask(self.post, "storage_ping_source_update", message)

    def succeeded(self, machine_uuid: str, *sources: str) -> Any:
        outcome = {
            "success": True,
            "snapshot": "etc_20261123-120000_0a1b",
            "summary": "Number of files: 3",
            "time_begin": 1_790_000_000.25,
            "time_end": 1_790_000_012.75,
        }
        return self.report(machine_uuid, dict.fromkeys(sources, outcome))

    def failed(self, machine_uuid: str, *sources: str) -> Any:
        return self.report(
            machine_uuid,
            {key: {"success": False, "snapshot": None, "summary": "rsync exit code 12"} for key in sources},
        )
