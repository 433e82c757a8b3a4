"""The cost that every machine of a fleet pays every five minutes: a ping with nothing due."""

import subprocess
import sys
import time

from tests.integration.agent.conftest import PROGRAMS, Machine
from tests.support.v1_server import V1Api

LIMIT_SECONDS = 0.25
HEAVY = (
    "requests",
    "urllib3",
    "rich",
    "yaml",
    "subprocess",
    "turku.agent.tunnel.ssh_tunnel",
    "turku.agent.backup_session",
)


def test_it_takes_a_moment(machine: Machine, api: V1Api) -> None:
    machine.register()
    api.due = set()
    walls: list[float] = []
    # The best of several: other work on the same cores can only make a run longer.
    while not walls or (min(walls) > LIMIT_SECONDS and len(walls) < 20):
        begin = time.perf_counter()
        assert machine.ping().returncode == 0
        walls.append(time.perf_counter() - begin)
    assert min(walls) <= LIMIT_SECONDS, walls


def test_it_imports_nothing_that_only_a_backup_needs(machine: Machine, api: V1Api) -> None:
    machine.register()
    api.due = set()
    traced = subprocess.run(
        [sys.executable, "-X", "importtime", PROGRAMS / "turku-agent-ping", "-c", machine.config_dir],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    imported = {line.rpartition("|")[2].strip() for line in traced.stderr.splitlines()}
    assert "turku.agent.ping" in imported
    assert imported.isdisjoint(HEAVY)
