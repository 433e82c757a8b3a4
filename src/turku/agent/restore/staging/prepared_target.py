"""A target that is ready for a restore: locked, with a staging directory and basis files in it."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from turku.agent.capture import excluded_paths
from turku.agent.config.model import AgentConfig
from turku.agent.restore.job import RestoreJob
from turku.agent.restore.staging import target
from turku.agent.restore.staging.basis_file_writer import BasisFileWriter
from turku.agent.restore.staging.basis_files import BasisFiles
from turku.agent.restore.staging.staging_directory import StagingDirectory
from turku.core import durable
from turku.core.filesystem import removal
from turku.errors import RestoreFailed, TurkuError
from turku.protocol.restore_messages import PARTIAL_DIRECTORY, TEMPORARY_DIRECTORY, RestorePlan, Settable

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class PreparedTarget:
    """The locked target of one restore. Received files land in its staging directory."""

    descriptor: int
    staging: StagingDirectory
    basis_files: BasisFiles
    temporary: bytes
    partial: bytes
    """The names of the directories in which the storage's rsync keeps half-written files."""
    kinds: frozenset[Settable]
    """The attributes that can be set in the target."""
    untouched: frozenset[bytes] = frozenset()
    """Directories of the target that stay as they are."""

    @classmethod
    def prepare(
        cls,
        agent: AgentConfig,
        job: RestoreJob,
        directory: Path,
        plan: RestorePlan,
        stack: ExitStack,
        *,
        differing: Collection[bytes],
        kinds: Collection[Settable],
    ) -> PreparedTarget:
        """Lock ``directory`` until ``stack`` is closed, and create a staging directory with basis files in it.

        ``differing`` are files whose content differs although size and time are the same. Raises RestoreFailed,
        LockHeld.
        """
        is_new = not os.path.lexists(directory)
        descriptor = stack.enter_context(target.locked(directory))
        staging = stack.enter_context(
            StagingDirectory.opened(agent, descriptor, directory, job.digest(plan.snapshot), is_target_new=is_new)
        )
        temporary, partial = TEMPORARY_DIRECTORY, PARTIAL_DIRECTORY
        secret_name = job.temporary(agent.state)
        if plan.temporary == secret_name:
            temporary, partial = secret_name, f"{secret_name}-partial"
        prepared = cls(
            descriptor,
            staging,
            BasisFiles(),
            temporary.encode(),
            partial.encode(),
            kinds=frozenset(kinds),
            untouched=excluded_paths.protected_paths(agent.state, job.source_here(agent), directory),
        )
        stack.callback(prepared.basis_files.close)
        # If the restore is interrupted, the same command resumes with the received files. No others may be left then.
        stack.callback(prepared._remove_basis_files)
        try:
            removal.remove(staging.tree, prepared.temporary)
            os.mkdir(prepared.temporary, 0o700, dir_fd=staging.tree)
            BasisFileWriter(
                prepared.basis_files,
                descriptor,
                staging.tree,
                staging.name,
                shows_all=job.shows_all,
                differing=differing,
                untouched=prepared.untouched,
                kinds=kinds,
                before_first=lambda: staging.record_basis_files(are_there=True),
            ).create(job.paths)
        except OSError as error:
            raise RestoreFailed(
                f"cannot prepare a restore into {directory}: {error.strerror or error}",
                hint="free space and inodes are needed there; --to names another directory",
            ) from error
        return prepared

    def open_file(self, path: bytes) -> int:
        """Open the content that the path will have. Raises OSError."""
        return self.basis_files.open_content(self.descriptor, self.staging.offered, path)

    def _remove_basis_files(self) -> None:
        if not self.basis_files.count or self.staging.is_removed:
            return
        try:
            self.basis_files.remove(self.staging.tree)
            # Before their removal is recorded: after a power failure one could be mistaken for a received file.
            durable.sync_file_system_of(self.staging.tree)
            self.staging.record_basis_files(are_there=False)
        except (OSError, TurkuError) as error:
            # The next restore into the target then starts from the beginning.
            _LOG.warning("a later run cannot resume with the received files: %s", error)
