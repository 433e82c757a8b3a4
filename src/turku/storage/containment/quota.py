"""The disk usage of a machine, compared with its quota.

A quota counts the disk blocks of all snapshots of a machine, each hard-linked file once. The bytes that runs write are
added up. Space that deletion frees is found by measuring again when the sum comes near the quota.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from turku.core import durable
from turku.core.clock import Clock
from turku.storage.fs import disk_usage

if TYPE_CHECKING:
    from turku.storage.config.model import StorageConfig, StorageState
    from turku.storage.containment.watchdog import Watchdog

_NEAR_QUOTA: Final = 0.9
_MEASURE_AGAIN_SECONDS: Final = 6 * 3600.0
_LOG = logging.getLogger(__name__)


class _Usage(msgspec.Struct):
    used_bytes: int
    measured_at: float


def record_usage(configuration: StorageConfig, machine_dir: Path, written_bytes: int) -> None:
    """Add the bytes of a run to the machine's usage. Does nothing without a quota."""
    if configuration.disk.machine_quota_bytes is None:
        return
    path = _usage_path(configuration.state, machine_dir)
    # Sources of a machine are backed up side by side.
    with _USAGE_LOCK:
        usage = _read_usage(path)
        if usage is not None:
            usage.used_bytes += written_bytes
            _write_usage(path, usage)


def used_bytes(configuration: StorageState, machine_dir: Path, quota: int, clock: Clock) -> int:
    """Return the machine's usage in bytes, never less than it is while runs are the only writers."""
    path = _usage_path(configuration, machine_dir)
    with _USAGE_LOCK:
        usage = _read_usage(path)
        now = clock.now().timestamp()
        # The sum only grows, so it never lies below the truth. It is measured again only when that could matter.
        near = usage is not None and usage.used_bytes >= _NEAR_QUOTA * quota
        if usage is None or (near and not 0 <= now - usage.measured_at < _MEASURE_AGAIN_SECONDS):
            _LOG.info("measuring the disk space of %s", machine_dir)
            usage = _Usage(used_bytes=disk_usage.measured_bytes(machine_dir), measured_at=now)
            _write_usage(path, usage)
        return usage.used_bytes


def _usage_path(configuration: StorageState, machine_dir: Path) -> Path:
    return configuration.var_dir / "usage" / f"{machine_dir.name}.json"


def _read_usage(path: Path) -> _Usage | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Usage)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


def _write_usage(path: Path, usage: _Usage) -> None:
    durable.make_private_directory(path.parent)
    durable.write_json(path, msgspec.to_builtins(usage))


class RunCounter:
    """The bytes that this process's runs wrote for each machine. Sources run side by side and share a quota."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._finished: Counter[Path] = Counter()
        self._running: dict[Path, list[Watchdog]] = defaultdict(list)

    def finished_bytes(self, machine_dir: Path) -> int:
        """Return the bytes that finished runs wrote."""
        return self._finished[machine_dir]

    def written_bytes(self, machine_dir: Path) -> int:
        """Return the bytes that finished and running runs wrote."""
        with self._lock:
            return self._finished[machine_dir] + sum(each.written_bytes for each in self._running[machine_dir])

    @contextmanager
    def counting(self, machine_dir: Path, watchdog: Watchdog) -> Iterator[None]:
        """Count a run for the length of the block."""
        with self._lock:
            self._running[machine_dir].append(watchdog)
        try:
            yield
        finally:
            with self._lock:
                self._running[machine_dir].remove(watchdog)
                self._finished[machine_dir] += watchdog.written_bytes


RUNS = RunCounter()
_USAGE_LOCK = threading.Lock()
