"""Packages on hosts that are set up: upgraded, removed, and purged."""

from pathlib import Path

import pytest
from tests.hosts.fleet import HOSTS, VOLUME, Fleet
from tests.hosts.host import CommandRefused, Host
from tests.hosts.package_versions import newer

PACKAGES = {
    "coordinator": "turku-api",
    "storage": "turku-storage",
    "machine": "turku-agent",
    "second_machine": "turku-agent",
}


def upgrade(host: Host, name: str, directory: Path) -> str:
    directory.mkdir()
    return host.install(*(newer(package, directory) for package in HOSTS[host.name].packages(PACKAGES[name])))


def configuration(host: Host) -> str:
    return host.run(
        "find /etc/turku-* -type f -exec sha256sum {} + | sort; stat -c '%a %U %n' /etc/turku-* /var/lib/turku-*"
    )


@pytest.mark.parametrize("name", PACKAGES)
def test_an_upgrade_keeps_the_configuration_and_what_runs(fleet: Fleet, tmp_path: Path, name: str) -> None:
    host: Host = getattr(fleet, name)
    before = configuration(host)
    active = host.run(
        "systemctl list-units 'turku-*.timer' 'turku-api.service' --state=active --no-legend --plain | cut -d' ' -f1"
    )
    said = upgrade(host, name, tmp_path / "newer")
    assert "upgraded from" in said
    assert "changelog" in said
    assert configuration(host) == before
    assert (
        active.split()
        == host.run(
            "systemctl list-units 'turku-*.timer' 'turku-api.service' --state=active --no-legend --plain | cut -d' ' -f1"
        ).split()
    )
    assert host.failed_units() == ""


def test_a_service_is_restarted_by_its_upgrade(fleet: Fleet, tmp_path: Path) -> None:
    started = "systemctl show turku-api.service --property=ExecMainStartTimestampMonotonic,ActiveState"
    before = fleet.coordinator.run(started)
    upgrade(fleet.coordinator, "coordinator", tmp_path / "newer")
    after = fleet.coordinator.run(started)
    assert "ActiveState=active" in after
    assert after != before
    fleet.coordinator.run("turku-api health")


# A table that is gone, and a row that says that its migration did not happen, stand for an older database.
OLDER = (
    'database.execute("DROP TABLE django_session");'
    "database.execute(\"DELETE FROM django_migrations WHERE app = 'sessions'\"); database.commit()"
)


def test_an_upgrade_migrates_the_database_and_a_failure_is_told_and_finished_by_a_second_try(
    fleet: Fleet, tmp_path: Path
) -> None:
    coordinator = fleet.coordinator
    program = coordinator.root / "root" / "older.py"
    program.write_text(f'import sqlite3; database = sqlite3.connect("/var/lib/turku-api/db.sqlite3")\n{OLDER}\n')
    coordinator.run("systemctl stop turku-api.service && python3 /root/older.py")
    environment = coordinator.root / "etc/turku-api/environment"
    before = environment.read_text()
    environment.write_text(f"{before}TURKU_DATABASE_URL=postgresql://nobody@127.0.0.1:1/none\n")
    with pytest.raises(CommandRefused) as refused:
        upgrade(coordinator, "coordinator", tmp_path / "newer")
    assert "turku-api: the database could not be migrated" in refused.value.output
    environment.write_text(before)
    coordinator.run("dpkg --configure turku-api")
    program.write_text(
        'import sqlite3; sqlite3.connect("/var/lib/turku-api/db.sqlite3").execute("SELECT * FROM django_session")\n'
    )
    coordinator.run("python3 /root/older.py")
    assert coordinator.run("stat --format=%U /var/lib/turku-api/db.sqlite3").strip() == "turku-api"
    coordinator.run("turku-api health")
    assert coordinator.failed_units() == ""


def test_a_backup_works_after_every_host_was_upgraded(fleet: Fleet, tmp_path: Path) -> None:
    coordinator, storage = fleet.coordinator, fleet.storage
    for name in ("machine", "coordinator", "storage"):
        upgrade(getattr(fleet, name), name, tmp_path / f"newer-{name}")
        coordinator.run("turku-api back-up-now web-0 etc")
        fleet.machine.run(f"echo {name} > /etc/upgraded; systemctl start turku-agent-ping.service")
        assert storage.run("cat /var/lib/turku-storage/machines/web-0/etc.snapshots/latest/upgraded").strip() == name
    fleet.machine.run("turku-agent restore etc /etc/upgraded")


def test_a_removed_agent_leaves_its_identity_and_a_purged_one_leaves_its_history(fleet: Fleet) -> None:
    machine, storage = fleet.machine, fleet.storage
    snapshots = storage.run("ls /var/lib/turku-storage/machines/web-0/etc.snapshots/")
    said = machine.run("apt-get remove -y turku-agent turku-common 2>&1")
    assert "stay" in said
    machine.run("test -e /etc/turku-agent/config.d && ls /var/lib/turku-agent/config.d/*machine_uuid*")
    assert machine.run("systemctl list-timers 'turku-*' --no-legend").strip() == ""
    assert "were removed" in machine.run("apt-get purge -y turku-agent 2>&1")
    machine.run("! ls -d /etc/turku-agent /var/lib/turku-agent")
    assert machine.failed_units() == ""
    assert storage.run("ls /var/lib/turku-storage/machines/web-0/etc.snapshots/") == snapshots


def test_a_purged_storage_leaves_its_volume(fleet: Fleet) -> None:
    storage = fleet.storage
    before = storage.run(f"find {VOLUME} | sort | sha256sum")
    storage.run("apt-get purge -y turku-storage 2>&1")
    assert storage.run(f"find {VOLUME} | sort | sha256sum") == before
    storage.run("! ls /etc/sudoers.d/turku-storage /etc/ssh/sshd_config.d/turku-storage.conf; sshd -t")
    assert storage.failed_units() == ""


def test_a_purged_coordinator_leaves_nothing_that_runs(fleet: Fleet) -> None:
    coordinator = fleet.coordinator
    coordinator.run("apt-get purge -y turku-api turku-common 2>&1")
    assert coordinator.run("systemctl list-units 'turku-*' --no-legend --plain").strip() == ""
    coordinator.run("! ls -d /etc/turku-api /var/lib/turku-api")
    assert coordinator.failed_units() == ""
