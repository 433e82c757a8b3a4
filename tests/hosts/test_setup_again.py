"""Setup on hosts that are set up, and teardown."""

import pytest
from tests.hosts.fleet import VOLUME, Fleet
from tests.hosts.host import Host

SETUPS = {"coordinator": "turku-api", "storage": "turku-storage", "machine": "turku-agent"}
FILES = "find /etc /usr/local /var/lib/turku-* -xdev -type f -not -name '*.sqlite3*' -not -path '*/ssl/*' -exec sha256sum {} + | sort"


@pytest.mark.parametrize("name", SETUPS)
def test_setup_again_changes_nothing(fleet: Fleet, name: str) -> None:
    host: Host = getattr(fleet, name)
    # A machine asks both whether it is backed up.
    _ = fleet.coordinator, fleet.storage
    before = host.run(FILES)
    said = host.run(f"{SETUPS[name]} setup --yes")
    assert "[1/" not in said, said
    assert host.run(FILES) == before
    assert host.failed_units() == ""


@pytest.mark.parametrize("name", SETUPS)
def test_a_dry_run_of_teardown_changes_nothing(fleet: Fleet, name: str) -> None:
    host: Host = getattr(fleet, name)
    before = host.run(FILES)
    assert host.run(f"{SETUPS[name]} teardown --dry-run")
    assert host.run(FILES) == before


def test_teardown_of_a_storage_leaves_its_backups_and_nothing_that_runs(fleet: Fleet) -> None:
    storage = fleet.storage
    before = storage.run(f"find {VOLUME} | sort | sha256sum")
    said = storage.run("turku-storage teardown --yes")
    assert VOLUME in said
    assert storage.run(f"find {VOLUME} | sort | sha256sum") == before
    storage.run("! ls /etc/sudoers.d/turku-storage /etc/ssh/sshd_config.d/turku-storage.conf; sshd -t")
    assert storage.run("systemctl list-timers 'turku-*' --no-legend").strip() == ""
    assert storage.failed_units() == ""
    # Teardown of one that is torn down is none.
    storage.run("turku-storage teardown --yes")


def test_a_machine_that_was_torn_down_can_be_set_up_again(fleet: Fleet) -> None:
    coordinator, machine = fleet.coordinator, fleet.machine
    _ = fleet.storage
    machine.run("turku-agent teardown --yes")
    assert machine.run("systemctl list-timers 'turku-*' --no-legend").strip() == ""
    token = coordinator.run("turku-api join-token create machine --raw").split()[-1]
    said = machine.run(f"turku-agent setup {token} --source etc=/etc --yes", timeout_seconds=300)
    assert "backed up" in said
    assert machine.failed_units() == ""


def test_teardown_of_a_coordinator_leaves_nothing_that_runs(fleet: Fleet) -> None:
    coordinator = fleet.coordinator
    coordinator.run("turku-api teardown --yes")
    assert coordinator.run("systemctl list-units 'turku-*' --state=active --no-legend --plain").strip() == ""
    assert coordinator.failed_units() == ""
