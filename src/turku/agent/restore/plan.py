"""The plan of a restore: what the storage announces, and what that means for the target."""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from turku.agent.config.model import AgentState
from turku.agent.restore.job import RestoreJob
from turku.agent.restore.staging import target
from turku.agent.state import staging_records
from turku.core.log import one_line
from turku.core.units import size
from turku.errors import InvalidValue, MalformedMessage, RestoreFailed
from turku.policy import names
from turku.protocol.restore_messages import REMARK_LIMIT, RestorePlan

_MORE_BYTES = 64 * 1024**2
_MORE_FILES = 1000
"""The tolerance beside a tenth of the plan, because files may have changed since the storage counted them."""


@dataclass(frozen=True)
class PlannedRestore:
    """A restore that is about to begin. Numbers are None where the storage does not know them yet."""

    source: str
    snapshot: str
    moment: str | None
    files: int | None
    size_bytes: int | None
    target: Path
    is_target_empty: bool
    """True where the target has nothing that could be overwritten."""
    was_interrupted: bool
    """True where an earlier restore into the target was interrupted."""
    remarks: tuple[str, ...] = ()
    """The storage's remarks on the snapshot, for example that it is quarantined."""
    copy_bytes: int | None = None
    """The disk space that the files take, which holes and hard links make smaller than ``size_bytes``."""

    @property
    def files_limit(self) -> int | None:
        """The most files that the storage may send."""
        return _with_tolerance(self.files, _MORE_FILES)

    @property
    def bytes_limit(self) -> int | None:
        """The most bytes that the storage may send."""
        return _with_tolerance(self.size_bytes, _MORE_BYTES)

    def require_space(self) -> None:
        """Raise RestoreFailed where a new target has too little space for the files."""
        needed = self.copy_bytes
        if needed is None or not self.is_target_empty or self.was_interrupted:
            return
        place = self.target
        while not place.exists() and place != place.parent:
            place = place.parent
        with suppress(OSError):
            usage = shutil.disk_usage(place)
            # A file system without a fixed size, for example one in memory, reports 0 for both.
            if usage.total and usage.free < needed:
                raise RestoreFailed(
                    f"the restore needs {size(needed)}, and {place} has {size(usage.free)} free",
                    hint="--to names another directory; paths restore a part",
                )


def planned_restore(configuration: AgentState, job: RestoreJob, plan: RestorePlan, storage_name: str) -> PlannedRestore:
    """Return the restore that the storage's plan amounts to on this machine. Raises MalformedMessage, RestoreFailed."""
    try:
        snapshot = names.storage_name(plan.snapshot)
    except InvalidValue as error:
        raise MalformedMessage(f"storage {storage_name} names a snapshot that {error.message}") from error
    directory = job.target
    if directory is None:
        # The name was just checked, so that this is one directory below ours.
        directory = job.below / f"{job.source}-restored-{snapshot.removeprefix(f'{job.source}_')}"
    return PlannedRestore(
        job.source,
        snapshot,
        None if plan.moment is None else one_line(plan.moment)[:100],
        plan.files,
        plan.size_bytes,
        directory,
        target.is_empty(configuration, directory),
        staging_records.is_interrupted(configuration, directory),
        tuple(one_line(remark)[:REMARK_LIMIT] for remark in plan.remarks),
        plan.copy_bytes if plan.copy_bytes is not None else plan.size_bytes,
    )


def _with_tolerance(count: int | None, least: int) -> int | None:
    return None if count is None else count + count // 10 + least
