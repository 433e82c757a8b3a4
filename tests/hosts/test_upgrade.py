"""Hosts with the packages of the last release are upgraded, with their history and their configuration."""

import re
from pathlib import Path

from tests.hosts import previous_release
from tests.hosts.conftest import Bare
from tests.hosts.fleet import VOLUME
from tests.hosts.host import Host
from tests.hosts.releases import Release
from tests.hosts.volume import Volume

TOKEN = re.compile(r"turku-(storage|machine)-[A-Za-z0-9_-]{40,}")
ROLES = {"web-0": "turku-agent", "turku": "turku-api", "storage": "turku-storage"}
"""The host of each package, in the order of the upgrade: machines may be newer than what they talk to."""
SNAPSHOTS = "/var/lib/turku-storage/machines/web-0/etc.snapshots"


def set_up(hosts: dict[str, Host]) -> None:
    for name, package in ROLES.items():
        hosts[name].install(*previous_release.packages(package))
    said = hosts["turku"].run("turku-api setup --yes")
    tokens = {found[1]: found[0] for found in TOKEN.finditer(said)}
    hosts["storage"].run(f"turku-storage setup {tokens['storage']} --volume {VOLUME} --yes")
    hosts["web-0"].run("echo first > /etc/made-before")
    hosts["web-0"].run(f"turku-agent setup {tokens['machine']} --source etc=/etc --yes", timeout_seconds=300)


def test_hosts_of_the_last_release_go_on_while_they_are_upgraded_one_by_one(bare: Bare, tmp_path: Path) -> None:
    with Volume(tmp_path / "volume") as volume:
        hosts = {
            "turku": bare("turku", Release.DEBIAN12),
            "storage": bare("storage", Release.DEBIAN12, turku=volume.mount_point),
            "web-0": bare("web-0", Release.DEBIAN12),
        }
        set_up(hosts)
        before = hosts["storage"].run(f"readlink {SNAPSHOTS}/latest").strip()
        for name, package in ROLES.items():
            said = hosts[name].install(*Release.DEBIAN12.packages(package))
            assert "upgraded from" in said
            hosts["turku"].run("turku-api back-up-now web-0 etc")
            hosts["web-0"].run(f"echo {name} > /etc/made-during; systemctl start turku-agent-ping.service")
            assert hosts["storage"].run(f"cat {SNAPSHOTS}/latest/made-during").strip() == name
        machine = hosts["web-0"]
        machine.run(f"turku-agent restore etc /etc/made-before --snapshot {before} --to /root/old")
        assert machine.run("find /root/old -name made-before -exec cat {} +").strip() == "first"
        for host in hosts.values():
            assert host.failed_units() == "", host.name
        hosts["turku"].run("turku-api health")
        for host in hosts.values():
            host.stop()
