"""The target: the directory that a restore writes into, locked against other restores and prepared for rsync."""

import logging
import os
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from turku.agent.capture import excluded_paths, own_paths
from turku.agent.capture.own_paths import NO_OWN_PATHS, OwnPaths
from turku.agent.config.model import AgentConfig
from turku.agent.restore.job import RestoreJob
from turku.agent.restore.staging.basis_files import BasisFiles, BasisFileWriter
from turku.agent.restore.staging.staging_directory import StagingDirectory
from turku.core import durable, lock
from turku.core.filesystem import directory_tree, removal
from turku.errors import LockHeld, RestoreFailed, TurkuError
from turku.protocol.restore_messages import PARTIAL_SUFFIX, RestorePlan, Settable


@contextmanager
def locked(directory: Path) -> Iterator[int]:
    """Lock the target for the length of the block, and give its descriptor.

    The target is created (0700) where it is missing. Links in the path were resolved when somebody named it. None is
    followed here, as it could have been put there since. Raises RestoreFailed, LockHeld.
    """
    try:
        if not directory.is_absolute():
            raise NotADirectoryError
        descriptor = directory_tree.open_or_create(directory, mode=0o700)
    except NotADirectoryError as error:
        raise RestoreFailed(
            f"{error.filename or directory} is a symbolic link, or not a directory",
            hint="name the directory that it leads to",
        ) from error
    except OSError as error:
        raise RestoreFailed(f"cannot restore into {directory}: {error.filename}: {error.strerror}") from error
    try:
        with lock.exclusive_descriptor(descriptor, shown=directory):
            yield descriptor
    except LockHeld:
        raise LockHeld(f"another restore into {directory} is running", hint="wait for it to end") from None
    finally:
        os.close(descriptor)


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
    """Directories of the target that stay as they are, unless something for them arrives."""
    own: OwnPaths = NO_OWN_PATHS
    """Directories of the running agent in the target."""

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
    ) -> "PreparedTarget":
        """Lock ``directory`` until ``stack`` is closed, and create a staging directory with basis files in it.

        ``differing`` are files whose content differs although size and time are the same. Raises RestoreFailed,
        LockHeld.
        """
        own = own_paths.in_target(agent, directory)
        is_new = not os.path.lexists(directory)
        descriptor = stack.enter_context(locked(directory))
        staging = stack.enter_context(
            StagingDirectory.opened(agent, descriptor, directory, job.digest(plan.snapshot), is_target_new=is_new)
        )
        temporary = job.temporary(agent.state)
        prepared = cls(
            descriptor,
            staging,
            BasisFiles(),
            temporary.encode(),
            f"{temporary}{PARTIAL_SUFFIX}".encode(),
            kinds=frozenset(kinds),
            untouched=excluded_paths.protected_paths(job.source_here(agent), directory),
            own=own,
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
                untouched=prepared.untouched | own.sealed,
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
