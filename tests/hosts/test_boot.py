"""Hosts after a reboot: everything goes on by itself, and systemd and the journal tell nothing wrong."""

import json
import re

import pytest
from tests.hosts.fleet import Fleet
from tests.hosts.host import Host

TIMERS = {
    "coordinator": ("turku-api-clean-logs", "turku-api-backup"),
    "storage": ("turku-storage-update-config", "turku-storage-gc", "turku-storage-verify", "turku-storage-drill"),
    "machine": ("turku-agent-ping", "turku-update-config"),
    "second_machine": ("turku-agent-ping", "turku-update-config"),
}
# A minute after boot, and a machine's own moment within the five minutes after it.
WARNING = 4
"""A priority of syslog."""
SOON_SECONDS = 60 + 300 + 60


def journal(host: Host, *units: str) -> list[dict[str, str]]:
    """The messages of our units since boot, oldest first."""
    chosen = [f"--unit={unit}" for unit in units or ("turku-*",)]
    return [json.loads(line) for line in host.journal("--output=json", *(f"'{each}'" for each in chosen)).splitlines()]


@pytest.mark.parametrize("name", TIMERS)
def test_every_timer_is_active_after_a_boot(fleet: Fleet, name: str) -> None:
    host: Host = getattr(fleet, name)
    for timer in TIMERS[name]:
        assert host.run(f"systemctl is-active {timer}.timer").strip() == "active"
    assert host.failed_units() == ""


@pytest.mark.parametrize("name", TIMERS)
def test_systemd_takes_every_installed_unit_without_a_word(fleet: Fleet, name: str) -> None:
    host: Host = getattr(fleet, name)
    assert host.run("systemd-analyze verify --man=no /usr/lib/systemd/system/turku-* 2>&1").strip() == ""


def test_a_rebooted_fleet_backs_up_by_its_timers(fleet: Fleet) -> None:
    coordinator, storage, machine = fleet.coordinator, fleet.storage, fleet.machine
    machine.run("echo changed > /etc/turku-test-file")
    coordinator.run("turku-api back-up-now web-0 etc")
    for host in (coordinator, storage, machine):
        host.reboot()
    links = "/var/lib/turku-storage/machines"
    storage.wait_until(
        f"grep -qs changed {links}/web-0/etc.snapshots/latest/turku-test-file", seconds=SOON_SECONDS, every_seconds=2
    )
    for host in (coordinator, storage, machine):
        assert host.failed_units() == "", host.name
    coordinator.run("turku-api health")
    for host in (coordinator, storage, machine):
        for entry in journal(host):
            text = str(entry["MESSAGE"])
            # A ping may come before the coordinator is up, and is told as a warning.
            assert int(entry["PRIORITY"]) >= WARNING, f"{host.name}: {text}"
            assert not re.match(r"\[?\d{4}-\d\d-\d\d", text), f"{host.name} tells the time twice: {text}"


def test_pings_of_root_and_of_the_unit_come_from_one_system(fleet: Fleet) -> None:
    # In a container, systemd 252 shows the two different ids of the boot.
    for _ in range(3):
        fleet.coordinator.run("true")
        fleet.machine.run("turku-agent-ping")
        fleet.machine.run("systemctl start turku-agent-ping.service")
    assert "copy" not in fleet.coordinator.run("turku-api machine show web-0; turku-api health --verbose")
