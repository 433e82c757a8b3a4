"""Bit rot through all programs: found, repaired and reported. Restore drills, and the operator's view of both."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from tests.support.fleet import Fleet
from tests.support.trees import flip_bit
from tests.system.conftest import MakeMachine

from turku.demo import programs
from turku.demo.private_machine import PrivateMachine
from turku.demo.private_storage import PrivateStorage
from turku.errors import CommandFailed

pytestmark = pytest.mark.xdist_group("system-integrity")


class Site:
    """A machine of its own with one source of 30 files, backed up twice."""

    def __init__(self, fleet: Fleet, storage: PrivateStorage, machine: PrivateMachine, tree: Path) -> None:
        self.fleet = fleet
        self.storage = storage
        self.machine = machine
        self.tree = tree

    def back_up(self) -> None:
        self.fleet.make_due(self.machine)
        self.machine.ping()

    def operator(self, *arguments: str) -> tuple[int, str]:
        """Exit code and output of ``turku-storage ARGUMENTS``."""
        where = ("--machine", self.machine.uuid, "--config-dir", self.storage.config_dir)
        done = programs.run("turku-storage", *arguments, *where, expected_codes=(0, 1))
        return done.exit_code, done.stdout.decode()

    def health(self) -> str:
        """Return the output of the coordinator's Nagios check for this source."""
        said = self.fleet.coordinator.manage("health", "--verbose", check=False)
        return "\n".join(line for line in said.splitlines() if f" {self.machine.unit_name} / etc: " in line)


@pytest.fixture
def site(fleet: Fleet, storage: PrivateStorage, make_machine: MakeMachine, tmp_path: Path) -> Site:
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(30):
        (tree / f"file{number:02}").write_bytes(os.urandom(4000))
    (tree / "twin").write_bytes((tree / "file07").read_bytes())
    site = Site(fleet, storage, make_machine({"etc": {"path": str(tree)}}), tree)
    for number in range(2):
        (tree / "diary").write_text(f"day {number}\n")
        site.back_up()
    return site


def flip(path: Path) -> None:
    flip_bit(path, path.stat().st_size // 2, 1)


def states(site: Site) -> dict[str, Any]:
    rows = site.fleet.query(
        "SELECT d.path, state FROM integrity_damage d JOIN backups_source s ON s.id = source_id"
        " JOIN fleet_machine m ON m.id = s.machine_id WHERE m.uuid = ?",
        site.fleet.coordinator.key(site.machine.uuid),
    )
    return dict(rows)


def test_flipped_bits_are_found_repaired_and_reported(site: Site) -> None:
    snapshots = site.fleet.snapshots(site.machine, "etc")
    assert site.operator("verify")[0] == 0
    flip(snapshots[0] / "file07")
    flip(snapshots[0] / "file08")
    code, said = site.operator("verify", "--json")
    assert code == 1
    [found] = json.loads(said)
    assert {each["path"]: each["state"] for each in found["damages"]} == {"file07": "repaired", "file08": "next_backup"}
    assert found["is_reported"]
    assert all(len(each["snapshots"]) == 2 for each in found["damages"])
    assert states(site) == {"file07": "repaired", "file08": "next_backup"}
    assert (snapshots[1] / "file07").read_bytes() == (site.tree / "file07").read_bytes()
    assert "etc: damaged" in site.health()
    site.back_up()
    code, said = site.operator("verify", "--budget", "60")
    assert code == 0, said
    assert "file08: content, repaired" in said
    assert states(site) == {"file07": "repaired", "file08": "repaired"}
    assert (snapshots[0] / "file08").read_bytes() == (site.tree / "file08").read_bytes()
    assert "damaged" not in site.health()


def test_a_drill_proves_a_source_at_the_coordinator(site: Site) -> None:
    assert "unproven (no restore drill yet)" in site.health()
    code, said = site.operator("drill", "--due")
    assert code == 0, said
    assert "32 files" in said
    assert "unproven" not in site.health()
    assert site.operator("drill", "--due") == (0, "no drill is due\n")
    newest = site.fleet.snapshots(site.machine, "etc")[-1]
    assert site.operator("verify")[0] == 0
    flip(newest / "file09")
    code, said = site.operator("drill", "--source", "etc")
    assert code == 1
    assert "file09: its content is not what was backed up" in said
    assert "unproven (the last restore drill failed)" in site.health()
    assert site.fleet.query("SELECT 1 FROM audit_auditentry WHERE action = 'drill.failed'")


def test_a_file_whose_time_was_set_back_is_an_alarm(site: Site) -> None:
    altered = site.tree / "file11"
    status = altered.stat()
    altered.write_bytes(os.urandom(4000))
    os.utime(altered, ns=(status.st_atime_ns, status.st_mtime_ns))
    code, said = site.operator("verify", "--against-source")
    assert (code, "after its next backup" in said) == (0, True)
    site.back_up()
    assert states(site) == {"file11": "alarm"}
    assert "quarantined" in site.health()
    assert "file11" in site.operator("quarantine", "list")[1]


def test_a_source_whose_disk_is_not_mounted_is_not_backed_up_and_the_coordinator_knows(
    fleet: Fleet, make_machine: MakeMachine, tmp_path: Path
) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "other").mkdir()
    disk = {"path": str(tmp_path / "disk"), "expects_mount": True}
    machine = make_machine({"data": disk, "other": {"path": str(tmp_path / "other")}})
    for _ in range(2):
        with pytest.raises(CommandFailed) as caught:
            machine.ping()
        assert "source data is not offered" in caught.value.details
        # At the second time, nothing else is due.
        fleet.make_due(machine, "data")
    assert [run["success"] for run in fleet.runs(machine, "other")] == [True]
    assert [run["success"] for run in fleet.runs(machine, "data")] == [False, False]
    assert "nothing is mounted at" in fleet.runs(machine, "data")[0]["summary"]
