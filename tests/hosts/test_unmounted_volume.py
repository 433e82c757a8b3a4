"""A storage whose volume is not mounted: nothing is written around it, and everybody says so."""

from tests.hosts.fleet import VOLUME, Fleet


def test_a_volume_that_is_not_mounted_after_a_boot_gets_nothing_and_is_told(fleet: Fleet) -> None:
    fleet.coordinator.run("turku-api back-up-now web-0 etc")
    storage = fleet.storage
    storage.stop()
    binds = storage.binds.copy()
    storage.binds.clear()
    storage.boot()
    before = storage.run(f"find {VOLUME}")

    storage.refused("turku-storage check")
    assert "not mounted" in storage.run("turku-storage check || true")
    fleet.machine.refused("turku-agent-ping")
    storage.run("systemctl start turku-storage-gc.service || true")
    storage.run("systemctl start turku-storage-update-config.service || true")
    assert storage.run(f"find {VOLUME}") == before
    health = fleet.coordinator.run("turku-api health --verbose || true")
    assert "unmounted" in health

    storage.stop()
    storage.binds.update(binds)
    storage.boot()
    storage.run("systemctl start turku-storage-update-config.service && turku-storage check")
    fleet.machine.run("turku-agent-ping")
    assert "unmounted" not in fleet.coordinator.run("turku-api health --verbose || true")
