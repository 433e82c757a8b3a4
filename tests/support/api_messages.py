"""A lawful message of every call with every field of the contract, and ways to change one place of it."""

import json
from collections.abc import Callable
from typing import Any

from tests.support.v1_client import V1Machine, V1Storage

CALLS = (
    *("health", "update_config", "agent_ping_checkin", "agent_ping_restore"),
    *("storage_update_config", "storage_ping_checkin", "storage_ping_source_update"),
    *("machine_rotate", "machine_reenrol", "storage_rotate"),
)
Path = tuple[Any, ...]
Change = Callable[[Any, Any], None]


def lawful_messages(
    machine: V1Machine, storage: V1Storage, *, machine_auth: Any, storage_auth: Any, re_enrol_code: str
) -> dict[str, Any]:
    """Call to message. Sent as they are, none changes who the two are."""
    machine_credentials = {"uuid": machine.uuid, "secret": machine.secret}
    storage_credentials = {"name": storage.name, "secret": storage.secret}
    return {
        "health": {},
        "update_config": {
            "auth": machine_auth,
            "machine": {
                **machine_credentials,
                "environment_name": "production",
                "service_name": "shop",
                "unit_name": "web-0",
                "ssh_public_key": machine.ssh_public_key,
                "published": True,
                "comment": "the first",
                "sources": {
                    "etc": {
                        "path": "/etc",
                        "comment": "all of it",
                        "frequency": "daily",
                        "retention": "last 5 days",
                        "bwlimit": 100,
                        "snapshot_mode": "none",
                        "filter": ["- *.tmp"],
                        "exclude": ["*.log"],
                        "preserve_hard_links": False,
                        "shared_service": False,
                        "large_rotating_files": False,
                        "large_modifying_files": False,
                        "other": {"kept": ["as", 1, None]},
                    }
                },
            },
        },
        "agent_ping_checkin": {"machine": machine_credentials},
        "agent_ping_restore": {"machine": machine_credentials},
        "storage_update_config": {
            "auth": storage_auth,
            "storage": {
                **storage_credentials,
                "ssh_ping_host": "primary.example.com",
                "ssh_ping_host_keys": [machine.ssh_public_key],
                "ssh_ping_port": 22,
                "ssh_ping_user": "root",
                "space_total": 1000.5,
                "space_available": 500.5,
                "published": True,
                "comment": "the first",
            },
        },
        "machine_rotate": {
            "machine": machine_credentials,
            "new_secret": machine.secret,
            "new_ssh_public_key": machine.ssh_public_key,
        },
        "machine_reenrol": {"code": re_enrol_code, "secret": machine.secret, "ssh_public_key": machine.ssh_public_key},
        "storage_rotate": {"storage": storage_credentials, "new_secret": storage.secret},
        "storage_ping_checkin": {"storage": storage_credentials, "machine": {"uuid": machine.uuid}},
        "storage_ping_source_update": {
            "storage": storage_credentials,
            "machine": {
                "uuid": machine.uuid,
                "sources": {
                    "etc": {
                        "success": True,
                        "snapshot": "etc_20261123-120000_0a1b",
                        "summary": "3 files",
                        "time_begin": 1_790_000_000.5,
                        "time_end": 1_790_000_001.5,
                        "findings": ["800 of 1000 files were rewritten"],
                    }
                },
            },
        },
    }


def places(value: Any, path: Path = ()) -> list[Path]:
    """The path of every value inside."""
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        found += places(item, (*path, key))
    return found


def changed(message: Any, path: Path, change: Change) -> Any:
    """A deep copy with ``change(container, key)`` applied at the path."""
    copy = json.loads(json.dumps(message))
    container = copy
    for key in path[:-1]:
        container = container[key]
    change(container, path[-1])
    return copy


def put(value: Any) -> Change:
    def change(container: Any, key: Any) -> None:
        container[key] = value

    return change


def drop(container: Any, key: Any) -> None:
    container.pop(key)
