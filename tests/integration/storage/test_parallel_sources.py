"""Sources of one machine side by side in a session: the storage's number of them, or the machine's if it is smaller."""

import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.support.backed_up_machine import StorageClock, order, storage_configuration
from tests.support.recording_coordinator import RecordingCoordinator
from tests.support.rsyncd import Rsyncd

from turku.core import command
from turku.core.secret import Secret
from turku.protocol.messages import SessionRequest, SourceCredentials
from turku.storage.backup.job import BackupJob, BackupReport
from turku.storage.backup.run import back_up
from turku.storage.config.model import StorageConfig
from turku.storage.containment import limits, watchdog
from turku.storage.rsync import stats
from turku.storage.session.cancellation import AgentDisconnected, SessionCancellation

pytestmark = pytest.mark.storage_rsync

UUID = "9bef0a75-5a9b-43f7-a66a-7e8c6d7ad91d"
# Each rsync says when it begins and ends, and takes its time.
TRACING = 'echo "+" >> {log}; sleep 0.5; "$0" "$@"; code=$?; echo "-" >> {log}; exit $code'


def most_at_once(log: Path) -> int:
    running = most = 0
    for mark in log.read_text().split():
        running += 1 if mark == "+" else -1
        most = max(most, running)
    return most


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Rsyncd]:
    modules = {}
    for name in ("a", "b", "c", "d"):
        modules[name] = tmp_path / "sources" / name
        modules[name].mkdir(parents=True)
        (modules[name] / "file").write_text(name)
    with Rsyncd(tmp_path / "rsyncd", modules) as daemon:
        yield daemon


@pytest.mark.parametrize(
    ("storages", "machines", "most"), [({}, None, 2), ({"parallel_sources": 4}, None, 4), ({}, 1, 1), ({}, 64, 2)]
)
def test_so_many_at_once_and_each_is_reported(
    daemon: Rsyncd, tmp_path: Path, storages: dict[str, int], machines: int | None, most: int
) -> None:
    log = tmp_path / "log"
    script = TRACING.format(log=log)
    storage = storage_configuration(
        tmp_path / "storage", rsync_command=["sh", "-c", script, "rsync"], sandbox="off", **storages
    )
    (tmp_path / "storage" / "volume").mkdir()
    coordinator = RecordingCoordinator(**dict.fromkeys("abcd", order()))
    extra: dict[str, Any] = {} if machines is None else {"parallel_sources": machines}
    request = SessionRequest(
        action="checkin",
        port=daemon.port,
        sources=dict.fromkeys(coordinator.due, SourceCredentials(daemon.username, daemon.password)),
        **extra,
    )
    coordinator.checkin(storage, UUID, request)
    assert {name: report["success"] for name, report in coordinator.reports.items()} == dict.fromkeys("abcd", True)
    assert most_at_once(log) == most
    for name in coordinator.due:
        assert (tmp_path / "storage" / "volume" / UUID / f"{name}.snapshots" / "latest" / "file").read_text() == name


def test_the_agents_going_ends_all_of_them(daemon: Rsyncd, tmp_path: Path) -> None:
    storage = storage_configuration(
        tmp_path / "storage",
        rsync_command=["sh", "-c", "sleep 60", "rsync"],
        # It says no version.
        allow_old_rsync=True,
        sandbox="off",
    )
    machine_dir = tmp_path / "storage" / "volume" / UUID
    machine_dir.mkdir(parents=True)
    ended: list[str] = []
    read_end, write_end = os.pipe()

    def run(agent: SessionCancellation, name: str) -> None:
        try:
            back_up(job(machine_dir, daemon, name), storage, clock=StorageClock(), cancellation=agent)
        except AgentDisconnected:
            ended.append(name)

    begun = time.monotonic()
    with SessionCancellation(read_end) as agent:
        threads = [threading.Thread(target=run, args=(agent, name)) for name in ("a", "b")]
        for thread in threads:
            thread.start()
        time.sleep(1)
        os.close(write_end)
        for thread in threads:
            thread.join(30)
    assert sorted(ended) == ["a", "b"]
    assert time.monotonic() - begun < 40


def test_they_share_the_machines_quota(daemon: Rsyncd, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "sources" / name / "large").write_bytes(os.urandom(6_000_000))
    storage = storage_configuration(tmp_path / "storage", machine_quota_bytes=9_000_000)
    machine_dir = tmp_path / "storage" / "volume" / UUID
    machine_dir.mkdir(parents=True)
    bounds = [limits.run_limits(storage, machine_dir) for _ in range(2)]
    assert all(each.shares_bytes for each in bounds)
    watches = [
        watchdog.Watchdog(each, process=os.getpid(), tree=machine_dir, machine_dir=machine_dir) for each in bounds
    ]
    with limits.RUNS.counting(machine_dir, watches[0]), limits.RUNS.counting(machine_dir, watches[1]):
        watches[0].written_bytes = watches[1].written_bytes = bounds[0].bytes // 2 + 1 if bounds[0].bytes else 0
        assert "quota" in (watches[0]._bytes_violation() or "")
    # What one has written before the other ends still counts.
    third = watchdog.Watchdog(bounds[0], process=os.getpid(), tree=machine_dir, machine_dir=machine_dir)
    assert "quota" in (third._bytes_violation() or "")


def test_the_bytes_of_a_run_that_ends_before_its_first_check_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "_CHECK_SECONDS", 60.0)
    # As with bubblewrap, the process that writes is a child of the one that was started.
    script = "dd if=/dev/zero of=large bs=1M count=1 status=none; true"
    with command.start(["sh", "-c", script], working_directory=tmp_path) as child:
        watched = watchdog.Watchdog(limits.RunLimits(), process=child.pid, tree=tmp_path)
        watchdog.wait_for(child, watched)
    assert watched.written_bytes >= 1024 * 1024


def test_what_neither_kernel_nor_volume_shows_is_counted_as_rsync_reports_it(tmp_path: Path) -> None:
    watched = watchdog.Watchdog(limits.RunLimits(), process=os.getpid(), tree=tmp_path)
    # Others have freed more than the run wrote.
    watched._before = replace(watched._before, available_bytes=0)
    assert watched.total_written_bytes(4096) == 4096
    watched.written_bytes = 10_000
    assert watched.total_written_bytes(4096) == 10_000
    assert stats.literal_bytes(["Literal data: 7 bytes", "Literal data: 4096 bytes"]) == 4096
    assert stats.literal_bytes(["Literal data: many"]) == stats.literal_bytes([]) == 0


def job(machine_dir: Path, daemon: Rsyncd, name: str) -> BackupJob:
    return BackupJob(machine_dir, name, order(), daemon.port, daemon.username, Secret(daemon.password))


def test_reports_and_usage_add_up(daemon: Rsyncd, tmp_path: Path) -> None:
    storage: StorageConfig = storage_configuration(tmp_path / "storage", machine_quota_bytes=10**9)
    machine_dir = tmp_path / "storage" / "volume" / UUID
    machine_dir.mkdir(parents=True)
    limits.run_limits(storage, machine_dir)
    outcomes: list[BackupReport] = []
    threads = [
        threading.Thread(target=lambda each=name: outcomes.append(back_up(job(machine_dir, daemon, each), storage)))
        for name in ("a", "b", "c", "d")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [outcome.success for outcome in outcomes] == [True] * 4
    [usage] = (storage.state.var_dir / "usage").iterdir()
    assert json.loads(usage.read_text())["used_bytes"] > 0
