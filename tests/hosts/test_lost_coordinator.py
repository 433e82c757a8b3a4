"""A coordinator that is lost: a bare host takes its place, with a copy and without one."""

from pathlib import Path

from tests.hosts.fleet import HOSTS, Fleet
from tests.hosts.host import Host

COPY = "/var/backups/turku-api"
OWNERS_AND_MODES = {
    "/etc/turku-api": "root:turku-api 750",
    "/etc/turku-api/environment": "root:turku-api 640",
    "/var/lib/turku-api/db.sqlite3": "turku-api:turku-api 600",
    "/var/lib/turku-api/hash_key": "turku-api:turku-api 600",
}


def replaced(fleet: Fleet, directory: Path) -> Host:
    """Stop the coordinator, and start a bare host with its name and the package."""
    fleet.coordinator.stop()
    host = fleet.stack.enter_context(Host("turku", [HOSTS["turku"].root], fleet.network, directory))
    host.install(*HOSTS["turku"].packages("turku-api"))
    return host


def backs_up(fleet: Fleet, coordinator: Host, content: str) -> None:
    storage = fleet.storage
    coordinator.run("turku-api back-up-now web-0 etc")
    fleet.machine.run(f"echo {content} > /etc/written-later; systemctl start turku-agent-ping.service")
    snapshots = "/var/lib/turku-storage/machines/web-0/etc.snapshots"
    assert storage.run(f"cat {snapshots}/latest/written-later").strip() == content
    # One of the tutorial, and this one, which continues it.
    assert int(storage.run(f"ls -d {snapshots}/etc_*[0-9a-f] | wc -l")) >= 2


def test_a_copy_of_the_coordinator_goes_on_where_it_was(fleet: Fleet, tmp_path: Path) -> None:
    fleet.coordinator.run("systemctl start turku-api-backup.service")
    copy = next((fleet.coordinator.root / COPY.lstrip("/")).glob("2*"))
    new = replaced(fleet, tmp_path / "new")
    # Only root can read it, whoever it belonged to.
    new.run("mkdir -m 0700 /root/copy")
    for file in copy.rglob("*"):
        if file.is_file():
            new.copy_in(file, to=f"/root/copy/{copy.name}/{file.parent.relative_to(copy)}")
    said = new.run("turku-api recover /root/copy --yes 2>&1 || turku-api recover /root/copy 2>&1")
    assert "2 machines and 1 storage" in said
    for path, expected in OWNERS_AND_MODES.items():
        assert new.run(f"stat --format='%U:%G %a' {path}").strip() == expected, path
    new.run("turku-api setup --yes")
    new.wait_until("turku-api health")
    backs_up(fleet, new, "with a copy")
    assert new.failed_units() == ""


def test_storages_bring_back_a_coordinator_of_which_there_is_no_copy(fleet: Fleet, tmp_path: Path) -> None:
    new = replaced(fleet, tmp_path / "new")
    said = new.run("turku-api setup --yes")
    storage_token = next(word for word in said.split() if word.startswith("turku-storage-"))
    new.run("turku-api recover --from-storages")
    fleet.storage.run(f"turku-storage setup {storage_token} --yes && turku-storage recover-coordinator")
    machine_token = next(word for word in said.split() if word.startswith("turku-machine-"))
    code = new.run("turku-api machine re-enrol web-0 --raw").split()[-1]
    said = fleet.machine.run(f"turku-agent setup {machine_token} --re-enrol --yes <<< {code}", timeout_seconds=300)
    assert "with its history" in said
    backs_up(fleet, new, "without a copy")
    new.run("turku-api recover --end")
