"""However the agent ends, nothing of a session outlives it: no ssh, no rsyncd, no password file that still opens a door."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.agent.conftest import Machine, end, wait_for
from tests.support.v1_server import V1Api


@pytest.fixture
def running(machine: Machine, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A ping in the middle of a slow transfer."""
    tree = tmp_path / "src"
    tree.mkdir()
    (tree / "big").write_bytes(os.urandom(2_000_000))
    machine.source("big", tree, bwlimit=10)
    machine.register()
    with machine.start("turku-agent-ping") as process:
        try:
            # rsync writes below a temporary name until the file is whole.
            wait_for(lambda: list(machine.backed_up("big").glob(".big.*")))
            assert len([line for line in machine.processes() if "--daemon" in line]) >= 1
            assert len([line for line in machine.processes() if line.startswith("ssh ")]) == 1
            yield process
        finally:
            end(process)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_children_too(
    machine: Machine, running: subprocess.Popen[str], number: signal.Signals
) -> None:
    running.send_signal(number)
    _stdout, stderr = running.communicate(timeout=20)
    assert running.returncode == 128 + number
    assert "Traceback" not in stderr
    assert list((machine.var_dir / "run").iterdir()) == []
    # The daemon's process for the connection ends with the tunnel, a moment later.
    wait_for(lambda: machine.processes() == [], seconds=10)


def test_a_killed_agent_takes_its_children_along(machine: Machine, running: subprocess.Popen[str]) -> None:
    running.kill()
    running.wait(timeout=20)
    wait_for(lambda: machine.processes() == [], seconds=10)


def test_the_run_after_a_killed_one_works_and_clears_up(
    machine: Machine, api: V1Api, running: subprocess.Popen[str]
) -> None:
    running.kill()
    running.wait(timeout=20)
    assert list((machine.var_dir / "run").iterdir())
    api.machines[machine.uuid]["sources"]["big"]["bwlimit"] = None
    ping = machine.ping()
    assert ping.returncode == 0, ping.stderr
    assert list((machine.var_dir / "run").iterdir()) == []
    assert (machine.backed_up("big") / "big").stat().st_size == 2_000_000
