"""M5: the storage's history after a source was re-pointed, emptied, left without history, or removed.

The coordinator's part is in test_m4_m5_policy.py. Here the storage is ordered all of it at once.
"""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.support.backed_up_machine import BackedUpMachine, backed_up_machine, fingerprint

HOSTILE: dict[str, dict[str, Any]] = {
    "mode none": {"snapshot_mode": "none"},
    "large files": {"large_rotating_files": True, "large_modifying_files": True},
    "everything excluded": {"exclude": ["*"]},
    "everything filtered out": {"filter": ["- *"]},
    "hidden and at risk": {"filter": ["H *", "R *"]},
}


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[BackedUpMachine]:
    with backed_up_machine(tmp_path) as machine:
        (machine.source_dir / "directory").mkdir()
        for number in range(30):
            (machine.source_dir / "directory" / f"file{number}").write_text(f"{number}\n" * 50)
        yield machine


def history_of(machine: BackedUpMachine) -> dict[str, Any]:
    return {name: fingerprint(machine.place.snapshot(name)) for name in machine.snapshots()}


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE.keys())
def test_history_stays_and_an_emptied_source_does_not_age_it_out(
    machine: BackedUpMachine, hostile: dict[str, Any]
) -> None:
    machine.days(4)
    before = history_of(machine)
    for _ in range(4):
        machine.clock.moment += timedelta(days=2)
        outcome = machine.back_up(**hostile, retention="last 1 snapshots")
        assert outcome.success, outcome.summary
        # A mode without history is no finding, but a source that became empty is.
        assert bool(outcome.findings) == ("exclude" in hostile or "filter" in hostile)
    after = history_of(machine)
    assert before.items() <= after.items()


def test_a_source_without_history_that_becomes_empty_is_reported(machine: BackedUpMachine) -> None:
    assert machine.back_up(snapshot_mode="none").findings == ()
    outcome = machine.back_up(snapshot_mode="none", exclude=["*"])
    assert "the source is empty" in outcome.findings[0]
    assert outcome.summary.startswith("ANOMALY: ")


def test_a_source_that_is_pointed_elsewhere_is_kept_apart(machine: BackedUpMachine) -> None:
    machine.days(3)
    before = history_of(machine)
    machine.source_dir.rename(machine.source_dir.with_name("elsewhere"))
    machine.source_dir.mkdir()
    for number in range(40):
        (machine.source_dir / f"other{number}").write_text("something else\n")
    for _ in range(3):
        machine.clock.moment += timedelta(days=2)
        assert machine.back_up(retention="last 1 snapshots").findings
    assert before.items() <= history_of(machine).items()


def test_a_source_that_is_renamed_begins_a_history_of_its_own(machine: BackedUpMachine, tmp_path: Path) -> None:
    machine.days(3)
    before = history_of(machine)
    with backed_up_machine(tmp_path / "renamed", source="etc2") as renamed:
        renamed.machine_dir = machine.machine_dir
        renamed.clock.moment = machine.clock.moment + timedelta(days=300)
        assert renamed.back_up(retention="last 1 snapshots").success
        assert renamed.back_up(retention="last 1 snapshots").success
    assert history_of(machine) == before
