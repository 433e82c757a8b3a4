"""A restore job: the source, the snapshot, the paths, the target and the options of one restore."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path

from turku.agent.config.model import AgentConfig, AgentState, SourceConfig
from turku.agent.restore.staging.basis_files import Overwrite
from turku.agent.state import staging_records
from turku.protocol import rsync_checksums
from turku.protocol.messages import StorageAddress
from turku.protocol.restore_messages import FileRestoreRequest, Settable, SnapshotChoice, wire_path


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
            self.snapshot,
            [wire_path(path) for path in self.paths],
            overwrite=self.overwrite,
            delete=self.delete,
            hard_links=self.hard_links,
            list_only=list_only,
            knows_xxh128=rsync_checksums.knows_xxh128(agent.rsyncd.rsyncd_command),
            of_machine=self.of_machine,
            request=self.request,
            temporary=self.temporary(agent.state),
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
