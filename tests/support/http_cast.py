"""A machine and a storage that talk to a real coordinator over HTTP, and a look into its database.

cast = HttpCast.introduce(coordinator)      Alice (a machine) and Bob (a storage), registered, of this test alone
cast.alice.update_config({...})             as v1_client has it, or Refused
cast.rows("SELECT ...", value)              rows of the coordinator's database
cast.operator("Policy.objects.create(...)") an act of an operator, by `turku-api shell`
"""

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.support.coordinator import Coordinator
from tests.support.v1_client import Post, Refused, V1Machine, V1Storage

SOURCES: dict[str, Any] = {"etc": {"path": "/etc"}, "home": {"path": "/home"}}
_IMPORTS = (
    "from datetime import *; from turku.api.fleet.models import *; from turku.api.backups.models import *; "
    "from turku.api.fleet import *; "
)


@dataclass
class HttpCast:
    """Alice is a machine assigned to the storage Bob."""

    coordinator: Coordinator
    machine_auth: Any
    storage_auth: Any
    alice: V1Machine = field(init=False)
    bob: V1Storage = field(init=False)

    @classmethod
    def introduce(cls, coordinator: Coordinator) -> "HttpCast":
        """Return a cast of names that no other test uses. Bob takes Alice alone, as the only one with space."""
        name = uuid.uuid4().hex
        machine_auth = {"name": name, "secret": coordinator.create_auth("machine_reg", name=name)}
        storage_auth = {"name": name, "secret": coordinator.create_auth("storage_reg", name=name)}
        cast = cls(coordinator, machine_auth, storage_auth)
        coordinator.deactivate_unassigned_machines()
        cast.bob = cast.storage(space_available=1e12)
        cast.bob.update_config()
        cast.alice = cast.machine(unit_name=f"alice-{name[:8]}")
        cast.alice.update_config(SOURCES)
        cast.bob.space_available = 0
        cast.bob.update_config()
        return cast

    @property
    def post(self) -> Post:
        """Status and answer of one call."""
        return self.coordinator.post

    def machine(self, **attributes: Any) -> V1Machine:
        """Another machine that may register."""
        return V1Machine(self.post, **{"auth": self.machine_auth, **attributes})

    def storage(self, **attributes: Any) -> V1Storage:
        """Another storage that may register."""
        name = f"storage-{uuid.uuid4().hex[:8]}"
        return V1Storage(self.post, **{"auth": self.storage_auth, "name": name, "space_available": 0, **attributes})

    def rows(self, statement: str, *values: Any) -> list[Any]:
        """The rows that a SELECT finds, each a dictionary."""
        return self.coordinator.sql(statement, *values)

    def machine_row(self) -> Any:
        """Alice as the coordinator knows her, but for when she was seen."""
        (row,) = self.rows("SELECT * FROM fleet_machine WHERE uuid = ?", self.coordinator.key(self.alice.uuid))
        return {name: value for name, value in row.items() if name != "date_checked_in"}

    def source_rows(self) -> list[Any]:
        """Alice's sources."""
        return self.rows("SELECT * FROM backups_source WHERE machine_id = ? ORDER BY name", self.machine_row()["id"])

    def audit(self, action: str) -> list[Any]:
        """The entries of the audit log that Alice caused, of that action."""
        return self.rows(
            "SELECT * FROM audit_auditentry WHERE actor = ? AND action = ? ORDER BY id", self.alice.uuid, action
        )

    def operator(self, statements: str) -> str:
        """Run the statements of an operator. ``alice`` is the machine's row."""
        alice = f"alice = Machine.objects.get(uuid='{self.alice.uuid}'); "
        return self.coordinator.manage("shell", "--no-imports", "-c", _IMPORTS + alice + statements)


def status_of(act: Callable[..., Any]) -> int:
    """The status that an act is answered with."""
    try:
        act()
    except Refused as error:
        return error.status
    return 200
