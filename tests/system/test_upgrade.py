"""Coordinator, storage and agent are upgraded from the previous version, in each order, with history and a restore."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.support import previous_version
from tests.support.fleet import Fleet
from tests.support.markdown import REPOSITORY
from tests.support.previous_version import HOSTS, Hosts
from tests.support.trees import differences

from turku.core import command
from turku.demo import programs
from turku.demo.private_machine import PrivateMachine
from turku.demo.private_storage import PrivateStorage

pytestmark = pytest.mark.timeout(600)


@dataclass
class OldFleet:
    """A fleet with history of the previous version, and a copy of all of its state."""

    fleet: Fleet
    hosts: Hosts
    machine: PrivateMachine
    storage: PrivateStorage
    files: Path
    copy: Path

    def reset(self) -> None:
        """Make all as it was before the first upgrade."""
        self.fleet.coordinator.stop()
        self.hosts.downgrade_all()
        command.run(
            ["rsync", "-aHAX", "--delete", "--exclude=/primary/sshd", f"{self.copy}/", f"{self.fleet.directory}/"],
            timeout_seconds=120,
        )
        self.fleet.coordinator.start()

    def upgrade(self, host: str) -> None:
        """Do as docs/howto/upgrade.md says."""
        assert not self.hosts.loaded_from(host).is_relative_to(REPOSITORY)
        if host == "api":
            self.fleet.coordinator.stop()
        self.hosts.upgrade(host)
        assert self.hosts.loaded_from(host).is_relative_to(REPOSITORY)
        if host == "api":
            self.fleet.coordinator.manage("migrate", "--verbosity", "0")
            self.fleet.coordinator.start()
        elif host == "storage":
            self.storage.update_config()
        else:
            self.machine.update_config()

    def back_up(self, text: str) -> Path:
        """Change the source, back it up, and return the new snapshot."""
        (self.files / "diary").write_text(text)
        self.fleet.make_due(self.machine, "files")
        self.machine.ping()
        return self.fleet.snapshots(self.machine, "files")[-1]

    def restored(self, target: Path) -> Path:
        programs.run(
            *("turku-agent", "restore", "--config-dir", str(self.machine.config_dir), "files"),
            *("--to", str(target), "--yes"),
        )
        return target


@pytest.fixture(scope="module")
def old_fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OldFleet]:
    directory = tmp_path_factory.mktemp("upgrade")
    hosts = Hosts(directory / "bin", previous_version.checked_out(directory / "previous"))
    files = directory / "fleet" / "files"
    files.mkdir(parents=True)
    (files / "unchanged").write_text("unchanged\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(programs, "DIRECTORY", hosts.directory)
        fleet = Fleet(directory / "fleet")
        # Migrated by its own version, and not a copy of a database of the present one.
        fleet.coordinator.state_dir.mkdir(mode=0o700)
        fleet.coordinator.manage("migrate", "--verbosity", "0")
        with fleet:
            storage = fleet.storage("primary")
            machine = fleet.machine("upgraded", {"files": {"path": str(files)}})
            found = OldFleet(fleet, hosts, machine, storage, files, directory / "copy")
            found.back_up("previous\n")
            fleet.coordinator.stop()
            command.run(
                ["rsync", "-aHAX", "--exclude=/primary/sshd", f"{fleet.directory}/", f"{found.copy}/"],
                timeout_seconds=120,
            )
            yield found


@pytest.mark.parametrize("order", list(itertools.permutations(HOSTS)), ids="-".join)
def test_each_order_of_upgrades_keeps_history_and_goes_on_backing_up_and_restoring(
    old_fleet: OldFleet, order: tuple[str, ...], tmp_path: Path
) -> None:
    old_fleet.reset()
    [first] = old_fleet.fleet.snapshots(old_fleet.machine, "files")
    for number, host in enumerate(order):
        old_fleet.upgrade(host)
        snapshot = old_fleet.back_up(f"after {host}\n")
        assert (snapshot / "diary").read_text() == f"after {host}\n"
        assert (snapshot / "unchanged").stat().st_ino == (first / "unchanged").stat().st_ino
        [*_, run] = old_fleet.fleet.runs(old_fleet.machine, "files")
        assert (run["success"], run["strategy"]) == (True, "incremental"), run
        assert differences(old_fleet.files, old_fleet.restored(tmp_path / f"restored-{number}")) == []
    assert (first / "diary").read_text() == "previous\n"
    assert len(old_fleet.fleet.snapshots(old_fleet.machine, "files")) == 1 + len(order)
