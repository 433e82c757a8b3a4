"""A restore job, and its plan: what the storage announces, and what that means for the target."""

import hashlib
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from turku.agent.config.model import AgentConfig, AgentState, SourceConfig
from turku.agent.state import staging_records
from turku.core.log import one_line
from turku.core.units import size
from turku.errors import InvalidValue, MalformedMessage, RestoreFailed
from turku.policy import names
from turku.protocol import rsync_checksums
from turku.protocol.messages import StorageAddress
from turku.protocol.restore_messages import (
    REMARK_LIMIT,
    FileRestoreRequest,
    Overwrite,
    RestorePlan,
    Settable,
    SnapshotChoice,
    wire_path,
)

_MORE_BYTES = 64 * 1024**2
_MORE_FILES = 1000
"""The tolerance beside a tenth of the plan, because files may have changed since the storage counted them."""


@dataclass(frozen=True)
class RestoreJob:
    """The task of one restore."""

    source: str
    storage: StorageAddress
    target: Path | None
    """The absolute directory that takes the place of the source's own. It is created where it is missing.

    None stands for a new directory in ``below``.
    """
    snapshot: SnapshotChoice = field(default_factory=SnapshotChoice)
    paths: tuple[bytes, ...] = ()
    """Paths relative to the source, as ``names.path_inside`` returns them. Empty for the whole source."""
    overwrite: Overwrite = "always"
    delete: bool = False
    hard_links: bool = False
    compare_contents: bool = False
    of_machine: str | None = None
    """The UUID of the machine whose source is restored, where that is another one."""
    request: str | None = None
    """The restore request at the coordinator that the job comes from."""
    below: Path = field(default_factory=Path.cwd)
    """The directory in which a new target is created."""

    def message(
        self, agent: AgentConfig, *, list_only: bool = False, sets: list[Settable] | None = None
    ) -> FileRestoreRequest:
        """Return the request to the storage. ``sets`` are the attributes that can be set in the target."""
        return FileRestoreRequest(
            self.source,
            self.temporary(agent.state),
            self.snapshot,
            [wire_path(path) for path in self.paths],
            overwrite=self.overwrite,
            delete=self.delete,
            hard_links=self.hard_links,
            list_only=list_only,
            knows_xxh128=rsync_checksums.knows_xxh128(agent.rsyncd.rsyncd_command),
            of_machine=self.of_machine,
            request=self.request,
            sets=sets,
            # A user other than root may not write into files that arrived without write permission.
            digs_holes=os.geteuid() == 0,
        )

    @property
    def shows_all(self) -> bool:
        """True where rsync must see all names in the target, because it may overwrite none, or deletes others."""
        return self.overwrite == "never" or self.delete

    def source_here(self, agent: AgentConfig) -> SourceConfig | None:
        """Return the source of this machine that is restored, or None for one of another machine."""
        return agent.sources.get(self.source) if self.of_machine is None else None

    def temporary(self, configuration: AgentState) -> str:
        """Return the name of the directory for rsync's half-written files. It is the same for each run of one job.

        The name cannot be predicted, because an entry of the source with this name would be taken for a half-written
        file.
        """
        return staging_records.secret_name(configuration, self.digest(""))

    def digest(self, snapshot: str) -> str:
        """Return a digest that two runs share if one can use the files that the other received."""
        parts = (
            self.storage.name,
            self.source,
            snapshot,
            self.overwrite,
            str((self.delete, self.hard_links, self.of_machine)),
            *map(os.fsdecode, self.paths),
        )
        return hashlib.sha256(b"\0".join(map(os.fsencode, parts))).hexdigest()


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
        _is_empty(configuration, directory),
        staging_records.is_interrupted(configuration, directory),
        tuple(one_line(remark)[:REMARK_LIMIT] for remark in plan.remarks),
        plan.copy_bytes if plan.copy_bytes is not None else plan.size_bytes,
    )


def _with_tolerance(count: int | None, least: int) -> int | None:
    return None if count is None else count + count // 10 + least


def _is_empty(configuration: AgentState, directory: Path) -> bool:
    """Return True where nothing can be overwritten: the target is missing, empty, or left by an interrupted restore.

    Raises RestoreFailed where it cannot be read.
    """
    try:
        with os.scandir(directory) as entries:
            return staging_records.is_interrupted(configuration, directory) or next(entries, None) is None
    except FileNotFoundError:
        return True
    except OSError as error:
        raise RestoreFailed(f"cannot restore into {directory}: {error.strerror}") from error
