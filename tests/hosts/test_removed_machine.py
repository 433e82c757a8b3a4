"""Machines that an operator removes, moves, and disables."""

from tests.hosts.fleet import Fleet


def test_a_removed_machine_does_not_come_back_by_its_timer(fleet: Fleet) -> None:
    coordinator, machine, storage = fleet.coordinator, fleet.machine, fleet.storage
    coordinator.refused("turku-api machine remove web-0 < /dev/null")
    coordinator.run("turku-api machine remove web-0 --history keep")
    machine.run("systemctl start turku-agent-ping.service turku-update-config.service || true")
    assert "web-0" not in coordinator.run("turku-api machine list")
    assert "removed" in machine.refused("turku-update-config")
    storage.run("systemctl start turku-storage-update-config.service")
    storage.run(
        "! grep -q restrict /var/lib/turku-storage-login/.ssh/authorized_keys || ! grep -q web-0 /var/lib/turku-storage-login/.ssh/authorized_keys"
    )
    assert storage.run("ls -d /srv/turku/*/etc.snapshots | wc -l").strip() == "2"
