"""The output of `turku-api health` for a fleet, and due times from a wrong clock, on both databases."""

import uuid

import pytest
from tests.support.coordinator import Coordinator
from tests.support.v1_client import V1Machine, V1Storage


@pytest.fixture
def storage(coordinator: Coordinator) -> V1Storage:
    """A storage that takes the next machine, and no others."""
    storage = V1Storage(coordinator.post, auth=coordinator.create_auth("storage_reg", name=f"s {uuid.uuid4()}"))
    storage.name = f"storage-{uuid.uuid4().hex[:8]}"
    storage.update_config(space_available=1e12)
    return storage


@pytest.fixture
def machine(coordinator: Coordinator, storage: V1Storage) -> V1Machine:
    auth = coordinator.create_auth("machine_reg", name=f"m {uuid.uuid4()}")
    machine = V1Machine(coordinator.post, auth=auth, unit_name=f"web-{uuid.uuid4().hex[:8]}")
    machine.update_config({"etc": {"path": "/etc"}, "home": {"path": "/home"}})
    storage.update_config(space_available=0)
    return machine


def lines_about(coordinator: Coordinator, machine: V1Machine, *options: str) -> list[str]:
    """The lines of the check that are about marks of the machine and its sources."""
    output = coordinator.manage("health", "--verbose", *options, check=False)
    return [line for line in output.splitlines() if f" {machine.unit_name}" in line and "unproven" not in line]


def test_marks_and_reasons_of_machine_and_source(
    coordinator: Coordinator, machine: V1Machine, storage: V1Storage
) -> None:
    storage.succeeded(machine.uuid, "etc", "home")
    storage.failed(machine.uuid, "etc")
    machine_line, source_line = lines_about(coordinator, machine)
    assert f"machine {machine.unit_name}: failed: etc: rsync exit code 12" in machine_line
    assert f"source {machine.unit_name} / etc: failed: rsync exit code 12" in source_line
    machine.update_config({"etc": {"path": "/etc"}})
    machine_line, *source_lines = lines_about(coordinator, machine)
    assert f"machine {machine.unit_name}: withdrawn: home" in machine_line
    assert len([line for line in source_lines if ": withdrawn" in line or ": failed" in line]) == 2
    coordinator.manage("machine", "confirm-withdrawal", machine.unit_name)
    coordinator.manage("machine", "mute", machine.uuid[:13], "--days", "1", "--reason", "known")
    [line] = lines_about(coordinator, machine, "--overdue", "0.000001")
    assert "muted until" in line


@pytest.mark.parametrize("caller", ["agent", "storage"])
def test_a_due_time_of_a_wrong_clock_is_bounded(
    coordinator: Coordinator, machine: V1Machine, storage: V1Storage, caller: str
) -> None:
    storage.succeeded(machine.uuid, "etc", "home")
    assert machine.due() == {}
    coordinator.sql(
        "UPDATE backups_source SET date_next_backup = ?, date_last_backed_up = ?, date_added = ? WHERE machine_id ="
        " (SELECT id FROM fleet_machine WHERE uuid = ?)",
        *("2036-01-01 00:00:00", "2036-01-01 00:00:00", "2020-01-01 00:00:00", coordinator.key(machine.uuid)),
    )
    assert any(
        ": overdue: the clock of the coordinator was ahead" in line for line in lines_about(coordinator, machine)
    )
    due = machine.due() if caller == "agent" else storage.due(machine.uuid)
    assert set(due) == {"etc", "home"}
