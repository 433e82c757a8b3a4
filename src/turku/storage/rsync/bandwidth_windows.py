"""A transfer whose bandwidth limit changes with the time of day.

rsync keeps the limit with which it began. At a window's boundary it therefore stops by itself (``--stop-after``, to the
minute after it), and a second rsync continues with the new limit from the files transferred so far. With history, this
includes a partly transferred file (``--partial``), whose data is not sent again.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from turku.core.clock import Clock
from turku.errors import CommandFailed
from turku.storage.config.model import ReceivingConfig, StorageConfig
from turku.storage.containment.limits import RunLimits
from turku.storage.rsync import version as rsync_version
from turku.storage.rsync.request import TransferOptions
from turku.storage.rsync.result import TransferResult

_STOPPED: Final = "stopping at requested limit"
"""rsync's message when it stops by itself. Its exit code is one of several."""
_STOP_AFTER_VERSION: Final = rsync_version.RsyncVersion((3, 2, 3))
"""The first release with ``--stop-after``. With older ones the first limit holds to the end."""
_LOG = logging.getLogger(__name__)


def run(
    options: TransferOptions,
    run_limits: RunLimits,
    part: Callable[[TransferOptions, RunLimits], TransferResult],
    *,
    configuration: StorageConfig,
    clock: Clock,
) -> TransferResult:
    """Call ``part`` once for each bandwidth limit during the transfer, and return the result of the last call."""
    windows = options.bandwidth_limits
    if not windows.changes:
        return part(replace(options, keep_partial_files=False), run_limits)
    zone, stops = configuration.state.timezone, _has_stop_after(configuration.receiving)
    begin, written_bytes, was_restarted = clock.monotonic_seconds(), 0, False
    while True:
        now = clock.now()
        limit = windows.at(now, zone)
        until = windows.next_change(now, zone) if stops else None
        minutes = None if until is None else math.ceil((until - now).total_seconds() / 60)
        remaining = run_limits.remaining(clock.monotonic_seconds() - begin, written_bytes)
        _LOG.info(
            "bandwidth: %s%s",
            "no limit" if limit is None else f"at most {limit} KiB/s",
            "" if until is None else f" until {until.astimezone(zone):%H:%M}",
        )
        done = part(replace(options, bandwidth_kib_per_second=limit, stop_after_minutes=minutes), remaining)
        if until is None or clock.now() < until or _STOPPED not in done.last_lines:
            # An rsync that was stopped may not have reported everything that it did.
            all_lines_parsed = done.all_lines_parsed and not was_restarted
            return replace(done, all_lines_parsed=all_lines_parsed, was_restarted=was_restarted)
        written_bytes += done.written_bytes
        was_restarted = True


def _has_stop_after(configuration: ReceivingConfig) -> bool:
    try:
        version = rsync_version.installed(configuration.rsync_command)
    except CommandFailed:
        return False
    return version is not None and version >= _STOP_AFTER_VERSION
