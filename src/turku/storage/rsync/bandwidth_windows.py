"""A transfer whose bandwidth limit changes with the time of day.

rsync keeps the limit that it began with. So at a window's boundary it stops by itself (``--stop-after``, to the minute
after it) and another one goes on with the limit of that moment, from what the working tree has by then: where there is
history, a file that was under way too (``--partial``), of which what is there is not sent again.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from turku.core.clock import Clock
from turku.errors import CommandFailed
from turku.storage.config.model import StorageConfig
from turku.storage.containment.limits import RunLimits
from turku.storage.rsync import version as rsync_version
from turku.storage.rsync.request import TransferOptions
from turku.storage.rsync.result import TransferResult

_STOPPED: Final = "stopping at requested limit"
"""What rsync says then; its exit code is one of several."""
_STOPS: Final = rsync_version.RsyncVersion((3, 2, 3))
_LOG = logging.getLogger(__name__)


def run(
    selected: TransferOptions,
    bounds: RunLimits,
    part: Callable[[TransferOptions, RunLimits], TransferResult],
    *,
    configuration: StorageConfig,
    clock: Clock,
) -> TransferResult:
    """What came of the transfer, which ``part`` runs once for each limit that holds while it goes on."""
    windows = selected.bandwidth_limits
    if not windows.changes:
        return part(replace(selected, keep_partial_files=False), bounds)
    zone, stops = configuration.state.timezone, _can_stop(configuration)
    begin, taken_bytes, is_continued = clock.monotonic_seconds(), 0, False
    while True:
        now = clock.now()
        limit = windows.at(now, zone)
        until = windows.next_change(now, zone) if stops else None
        minutes = None if until is None else math.ceil((until - now).total_seconds() / 60)
        left = bounds.remaining(clock.monotonic_seconds() - begin, taken_bytes)
        _LOG.info("bandwidth: %s%s", _words(limit), "" if until is None else f" until {until.astimezone(zone):%H:%M}")
        done = part(replace(selected, bandwidth_kib_per_second=limit, stop_after_minutes=minutes), left)
        if until is None or clock.now() < until or _STOPPED not in done.last_lines:
            # What an rsync did that was stopped it may not have said.
            return replace(
                done, all_lines_parsed=done.all_lines_parsed and not is_continued, was_restarted=is_continued
            )
        taken_bytes += done.written_bytes
        is_continued = True


def _can_stop(configuration: StorageConfig) -> bool:
    """Whether the storage's rsync can stop by itself; with an older one the limit of the beginning holds to the end."""
    try:
        version = rsync_version.installed(configuration.receiving.rsync_command)
    except CommandFailed:
        return False
    return version is not None and version >= _STOPS


def _words(limit: int | None) -> str:
    return "no limit" if limit is None else f"at most {limit} KiB/s"
