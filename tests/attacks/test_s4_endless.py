"""S4: a storage that never lets go, or never stops talking, is left after the time limit, at a bounded price."""

import re
import socket
import subprocess
import time
from pathlib import Path

import pytest
from tests.attacks.conftest import StartPing
from tests.integration.agent.conftest import Machine, wait_for
from tests.support.hostile_storage import HostileStorage

LIMIT_SECONDS = 4
MEMORY_LIMIT_KIB = 96 * 1024
SHOWN_LIMIT_BYTES = 4 * 1024 * 1024 + 64 * 1024


@pytest.fixture(autouse=True)
def source(machine: Machine, tmp_path: Path) -> Path:
    tree = tmp_path / "src"
    tree.mkdir()
    (tree / "file").write_text("x")
    machine.source("etc", tree)
    machine.configure(session_timeout_seconds=LIMIT_SECONDS)
    return tree


def peak_memory_kib(process: int) -> int:
    """The most memory the process had so far."""
    found = re.search(r"^VmHWM:\s+(\d+) kB$", Path(f"/proc/{process}/status").read_text(), re.MULTILINE)
    return int(found[1]) if found else 0


def left_after_the_limit(process: subprocess.Popen[str], hostile: HostileStorage) -> int:
    """Return the agent's peak memory in KiB. Fails where the run does not end by the limit."""
    hostile.request()
    begin, peak = time.monotonic(), 0
    while process.poll() is None:
        assert time.monotonic() - begin < LIMIT_SECONDS + 20, "the storage holds the agent for ever"
        peak = max(peak, peak_memory_kib(process.pid))
        time.sleep(0.05)
    assert process.returncode == 2
    return peak


@pytest.mark.parametrize("behaviour", ["flood", "flood-line"])
def test_s4_endless_talk_costs_neither_memory_nor_disk(
    machine: Machine, hostile: HostileStorage, open_session: StartPing, tmp_path: Path, behaviour: str
) -> None:
    with (tmp_path / "stderr").open("w") as stderr, (tmp_path / "stdout").open("w") as stdout:
        process = open_session(behaviour=behaviour, stderr=stderr, stdout=stdout)
        peak = left_after_the_limit(process, hostile)
    assert f"did not end within {LIMIT_SECONDS} s" in (tmp_path / "stderr").read_text()
    assert (tmp_path / "stderr").stat().st_size < SHOWN_LIMIT_BYTES
    assert (tmp_path / "stdout").stat().st_size == 0
    assert 0 < peak < MEMORY_LIMIT_KIB
    assert machine.processes() == []


def test_s4_a_storage_that_never_lets_go_is_left(
    machine: Machine, hostile: HostileStorage, open_session: StartPing, tmp_path: Path
) -> None:
    process = open_session(behaviour="cling", stderr=(tmp_path / "stderr").open("w"))
    request = hostile.request()
    # A connection to rsyncd that is never closed, on top.
    with socket.create_connection(("127.0.0.1", request["port"]), 5) as held:
        assert held.recv(8) == b"@RSYNCD:"
        left_after_the_limit(process, hostile)
        wait_for(lambda: machine.processes() == [])
    assert list((machine.var_dir / "run").iterdir()) == []
    # The next run is not kept out by what is left of this one.
    hostile.forget()
    open_session(behaviour="hold")
    hostile.request()
    hostile.release()
