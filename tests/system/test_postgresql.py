"""The same loop with the coordinator on PostgreSQL."""

from pathlib import Path

import pytest
from tests.support.fleet import Fleet
from tests.support.postgresql import PostgresqlServer
from tests.support.restore_mode import restore_mode
from tests.support.trees import snapshot_differences


@pytest.mark.postgresql
def test_a_fleet_on_postgresql_backs_up_twice_and_restores(tmp_path: Path, files: Path) -> None:
    with PostgresqlServer() as server, Fleet(tmp_path / "fleet", server.create_database("turku")) as fleet:
        fleet.storage("primary")
        fleet.add_filter_set("no-b", ["- /b.txt"])
        machine = fleet.machine("on-postgresql", {"files": {"path": str(files), "filter": ["merge no-b"]}})
        machine.ping()
        (files / "a.txt").write_text("changed\n")
        fleet.make_due(machine)
        machine.ping()
        first, second = fleet.snapshots(machine, "files")
        assert (first / "a.txt").read_text() == "a\n"
        assert snapshot_differences(files, second, "--exclude=/b.txt") == []
        assert not (second / "b.txt").exists()
        assert [run["success"] for run in fleet.runs(machine, "files")] == [True, True]
        with restore_mode(machine) as mode:
            mode.send(first, path="a.txt")
        assert (machine.restore_path / "a.txt").read_text() == "a\n"
