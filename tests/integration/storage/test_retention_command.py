"""``turku-storage retention`` on real snapshots: a run records the rules, and the command says and does as a run would."""

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from tests.support import storage_command
from tests.support.backed_up_machine import BackedUpMachine, backed_up_machine

from turku.storage import catalog
from turku.storage.disk import retention_rules, trash

RULES = "last 2 days, earliest of week"


def volumes(directory: Path) -> dict[str, Any]:
    return {"data": {"path": str(directory / "volume")}}


def rows(machine: BackedUpMachine, *arguments: str) -> list[dict[str, Any]]:
    exit_code, text = storage_command.run(machine.storage, "retention", "--json", *arguments, clock=machine.clock)
    assert exit_code == 0
    found: list[dict[str, Any]] = json.loads(text)
    return found


def test_rules_are_recorded_by_a_run_and_applied_by_the_command(tmp_path: Path) -> None:
    with backed_up_machine(tmp_path, trash_days=7, volumes=volumes(tmp_path)) as machine:
        made = machine.days(6, period_seconds=86400.0)
        assert all(row["is_kept"] for row in rows(machine, "-n"))
        # The coordinator sends other rules from the next run on, which this stands for.
        retention_rules.record(machine.place, machine.job(retention=RULES, period_seconds=86400.0).order)
        expected = [row["snapshot"] for row in rows(machine, "--dry-run") if not row["is_kept"]]
        assert expected
        assert machine.snapshots() == made
        assert [row["snapshot"] for row in rows(machine) if row["is_removed"]] == expected
        assert machine.snapshots() == [name for name in made if name not in expected]
        assert sorted(each.name for each in trash.trashed_snapshots(machine.place)) == expected
        with catalog.open_catalog(machine.place, zone=machine.storage.state.timezone) as opened:
            assert [each.name for each in opened.snapshots()] == machine.snapshots()
        # What is left is whole, and the next run builds upon it.
        assert machine.differences(machine.newest_tree()) == []
        machine.days(1, retention=RULES, period_seconds=86400.0)
        assert retention_rules.read(machine.place) == retention_rules.SourceRules(RULES, None, 86400.0)


def test_a_source_without_history_records_no_rules(tmp_path: Path) -> None:
    with backed_up_machine(tmp_path, snapshot_mode="none") as machine:
        assert machine.back_up(snapshot_mode="none").success
        assert not machine.place.retention_rules.exists()


def test_until_is_when_a_run_removes_it(tmp_path: Path) -> None:
    options = {"retention": "last 3 snapshots", "period_seconds": 86400.0}
    with backed_up_machine(tmp_path, trash_days=7, volumes=volumes(tmp_path)) as machine:
        made = machine.days(3, **options)
        until = {row["snapshot"]: row["until"] for row in rows(machine, "-n")}
        for name in made[:2]:
            machine.days(1, **options)
            assert name not in machine.snapshots()
            assert until[name] is not None
            expected = datetime.fromisoformat(until[name])
            assert abs(machine.clock.now() - expected) < timedelta(minutes=5)
