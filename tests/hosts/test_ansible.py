"""The roles of Ansible on real hosts: they set up what is bare, and change nothing the second time."""

import shutil
from pathlib import Path

from tests.hosts.ansible import SITE, run_playbook
from tests.hosts.fleet import HOSTS, Fleet
from tests.hosts.host import Host


def test_the_role_sets_a_bare_machine_up_and_changes_nothing_the_second_time(fleet: Fleet, tmp_path: Path) -> None:
    _ = fleet.storage
    token = fleet.coordinator.run("turku-api join-token create machine --uses 1 --raw").split()[-1]
    release = HOSTS["web-1"]
    bare = fleet.stack.enter_context(Host("web-1", [release.root], fleet.network, tmp_path / "bare"))
    # Ansible itself demands it of each host.
    bare.run("apt-get install -y python3", timeout_seconds=300)
    packages = tmp_path / "packages"
    packages.mkdir()
    for package in release.packages("turku-agent"):
        shutil.copy(package, packages)
    variables = {
        "turku_common_package_directory": str(packages),
        "turku_agent_join_token": token,
        "turku_agent_configuration": {"environment_name": "production"},
        "turku_agent_sources": {"etc": {"path": "/etc"}},
    }
    groups = {"turku_machines": [bare]}

    planned = run_playbook(SITE, groups, variables=variables, is_check=True)
    assert planned.changed["web-1"] > 0
    bare.run("! test -e /etc/turku-agent/config.d/setup.json")
    first = run_playbook(SITE, groups, variables=variables)
    assert first.changed["web-1"] > 0
    assert token not in first.output
    second = run_playbook(SITE, groups, variables=variables)
    assert second.changed["web-1"] == 0, second.output
    # The timer has its own moment within some minutes.
    bare.run("systemctl start turku-agent-ping.service")
    bare.wait_until("turku-agent snapshots etc | grep -q etc_", seconds=90, every_seconds=3)
    assert bare.failed_units() == ""
