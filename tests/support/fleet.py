"""A small fleet of installed commands: one coordinator, storages with their own sshd, and machines, all in one
directory.

    with Fleet(directory) as fleet:
        storage = fleet.storage("primary")
        machine = fleet.machine("web-0", {"etc": {"path": "/etc"}}, storage=storage)
        machine.ping()
        fleet.snapshots(machine, "etc")

The machines and storages are the demo's. The acts of an operator (order a backup, move a machine) are written to the
database, as the admin site would.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.support import rsync_programs
from tests.support.coordinator import Coordinator
from tests.support.sshd import Sshd
from tests.support.v1_client import V1Machine, V1Storage

from turku.demo.private_machine import PrivateMachine
from turku.demo.private_storage import PrivateStorage


class Fleet:
    """A running coordinator, and the machines and storages that register with it, as a context manager."""

    def __init__(self, directory: Path, database_url: str | None = None) -> None:
        self.directory = directory
        self.coordinator = Coordinator(directory / "coordinator", database_url)
        self.storages: dict[str, PrivateStorage] = {}
        self.sshds: dict[str, Sshd] = {}
        self._stack = ExitStack()
        self._machine_secret = ""
        self._storage_secret = ""

    def __enter__(self) -> "Fleet":
        with ExitStack() as stack:
            stack.enter_context(self.coordinator)
            self._machine_secret = self.coordinator.create_auth("machine_reg")
            self._storage_secret = self.coordinator.create_auth("storage_reg")
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def storage(
        self,
        name: str,
        *,
        reached_through: Callable[[int], int] | None = None,
        sshd_lines: Sequence[str] = (),
        **configuration: Any,
    ) -> PrivateStorage:
        """A registered storage with an sshd of its own.

        ``reached_through`` returns the port that machines are to be told, for that of the sshd.
        """
        directory = self.directory / name
        sshd = self._stack.enter_context(
            Sshd(directory / "sshd", authorized_keys=directory / "authorized_keys", extra_lines=sshd_lines)
        )
        if reached_through is not None:
            configuration["ssh_ping_port"] = reached_through(sshd.port)
        storage = PrivateStorage(
            directory,
            name=name,
            api_url=self.coordinator.url,
            api_auth=self._storage_secret,
            sshd=sshd,
            configuration=rsync_programs.of_storage(configuration),
        )
        storage.update_config()
        self.storages[name] = storage
        self.sshds[name] = sshd
        return storage

    def unregistered_machine(
        self, name: str, sources: Mapping[str, Mapping[str, Any]], **configuration: Any
    ) -> PrivateMachine:
        """A machine whose configuration is written and whose commands were not run yet."""
        machine = PrivateMachine(
            self.directory / name,
            unit_name=name,
            api_url=self.coordinator.url,
            api_auth=self._machine_secret,
            configuration=rsync_programs.of_machine(configuration),
        )
        machine.declare(sources)
        return machine

    def machine(
        self,
        name: str,
        sources: Mapping[str, Mapping[str, Any]],
        *,
        storage: PrivateStorage | None = None,
        **configuration: Any,
    ) -> PrivateMachine:
        """A registered machine, ready to ping: kept by ``storage``, or by the first one of the fleet."""
        machine = self.unregistered_machine(name, sources, **configuration)
        machine.update_config()
        storage = storage or next(iter(self.storages.values()))
        self.assign(machine, storage)
        storage.update_config()
        return machine

    def v1_machine(self, **attributes: Any) -> V1Machine:
        """The contract's client for a machine, to be registered."""
        return V1Machine(self.coordinator.post, auth=self._machine_secret, **attributes)

    def v1_storage(self, storage: PrivateStorage) -> V1Storage:
        """The contract's client, acting for a registered storage of ours."""
        content = json.loads((storage.var_dir / "config.d" / "10-storage.json").read_text())
        return V1Storage(self.coordinator.post, name=storage.name, secret=content["secret"])

    def storage_of(self, machine: PrivateMachine) -> PrivateStorage:
        """The storage that the coordinator gave the machine."""
        [(name,)] = self.query(
            "SELECT s.name FROM fleet_machine m JOIN fleet_storage s ON s.id = m.storage_id WHERE m.uuid = ?",
            self.coordinator.key(machine.uuid),
        )
        return self.storages[name]

    def snapshots(self, machine: PrivateMachine, source: str) -> list[Path]:
        """The snapshots of a source, oldest first."""
        return self.storage_of(machine).snapshots(machine.uuid, source)

    def make_due(self, machine: PrivateMachine, *sources: str) -> None:
        """Order a backup of the sources (of all, where none is named), as 'back up now' does."""
        for name in sources or self.source_names(machine):
            self.execute(
                "UPDATE backups_source SET date_next_backup = ? WHERE name = ?"
                " AND machine_id = (SELECT id FROM fleet_machine WHERE uuid = ?)",
                *("2020-01-01 00:00:00", name, self.coordinator.key(machine.uuid)),
            )

    def source_names(self, machine: PrivateMachine) -> list[str]:
        """The sources that the coordinator has of a machine."""
        rows = self.query(
            "SELECT s.name FROM backups_source s JOIN fleet_machine m ON m.id = s.machine_id WHERE m.uuid = ?"
            " ORDER BY s.name",
            self.coordinator.key(machine.uuid),
        )
        return [name for (name,) in rows]

    def source_state(self, machine: PrivateMachine, source: str) -> dict[str, Any]:
        """Return the coordinator's record of the state of a source."""
        columns = ("success", "failure_count", "date_last_backed_up", "date_next_backup", "published", "active")
        [row] = self.query(
            f"SELECT {', '.join(f's.{column}' for column in columns)} FROM backups_source s"
            " JOIN fleet_machine m ON m.id = s.machine_id WHERE m.uuid = ? AND s.name = ?",
            *(self.coordinator.key(machine.uuid), source),
        )
        return dict(zip(columns, row, strict=True))

    def runs(self, machine: PrivateMachine, source: str) -> list[dict[str, Any]]:
        """The recorded runs of a source, oldest first."""
        columns = ("success", "snapshot", "summary", "strategy", "date_begin", "date_end")
        rows = self.query(
            f"SELECT {', '.join(f'r.{column}' for column in columns)} FROM backups_backuprun r"
            " JOIN backups_source s ON s.id = r.source_id JOIN fleet_machine m ON m.id = s.machine_id"
            " WHERE m.uuid = ? AND s.name = ? ORDER BY r.id",
            *(self.coordinator.key(machine.uuid), source),
        )
        return [dict(zip(columns, row, strict=True)) for row in rows]

    def assign(self, machine: PrivateMachine, storage: PrivateStorage) -> None:
        """Move a machine to another storage, as the operator does: in the admin site, and on a machine that knows
        storages already in its configuration, where no coordinator reaches."""
        self.trust(machine, storage)
        self.execute(
            "UPDATE fleet_machine SET storage_id = (SELECT id FROM fleet_storage WHERE name = ?) WHERE uuid = ?",
            *(storage.name, self.coordinator.key(machine.uuid)),
        )

    def trust(self, machine: PrivateMachine, storage: PrivateStorage) -> None:
        """Let a machine that knows storages already trust another one."""
        if (machine.var_dir / "known_storages.json").exists():
            keys = {"storage_host_keys": {storage.name: self.sshds[storage.name].host_keys}}
            (machine.config_dir / "config.d" / f"storage-{storage.name}.json").write_text(json.dumps(keys))

    def add_filter_set(self, name: str, rules: Iterable[str]) -> None:
        """Make a named set of filter rules, as the operator does in the admin site."""
        self.execute(
            "INSERT INTO fleet_filterset (name, rules, comment, active) VALUES (?, ?, '', TRUE)",
            *(name, json.dumps(list(rules))),
        )

    def query(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """The rows of a question to the coordinator's database."""
        return [tuple(row.values()) for row in self.coordinator.sql(statement, *values)]

    def execute(self, statement: str, *values: Any) -> None:
        """Change the coordinator's database."""
        self.coordinator.sql(statement, *values)
