"""The transfers of one backup: rsync runs with the source's options, within the limits of the run."""

import os
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Self

from turku.core.cancellation import NEVER, Cancellation
from turku.core.clock import Clock
from turku.core.filesystem.paths import split
from turku.core.filesystem.spool import Stack
from turku.errors import BackupFailed
from turku.policy.run_options import FAIL
from turku.storage.backup.changed_entries import AttributeComparison
from turku.storage.backup.job import BackupJob
from turku.storage.catalog.entry import DIRECTORY, FILE, NO_ATTRIBUTES
from turku.storage.catalog.scan import SnapshotReader
from turku.storage.config.model import StorageConfig
from turku.storage.containment import limits
from turku.storage.containment.sandbox import DaemonUnreachable
from turku.storage.disk.snapshot_notes import Notes
from turku.storage.disk.source_directory import SourceDirectory
from turku.storage.fs import tree as fs
from turku.storage.rsync import bandwidth_windows
from turku.storage.rsync import run as rsync_run
from turku.storage.rsync.change_log import Change, ChangeKind, ChangeLog, ItemizedLine
from turku.storage.rsync.file_errors import FileErrors
from turku.storage.rsync.file_system_support import FileSystemSupport
from turku.storage.rsync.request import TransferOptions, TransferScope, Workspace
from turku.storage.rsync.result import TransferResult
from turku.storage.snapshots import SnapshotMode, assembly
from turku.storage.snapshots.assembly import HardlinkCopy


class DroppedAttributes:
    """Attributes of links, FIFOs, sockets and devices that rsync drops with ``--copy-dest``. A context manager.

    With this option rsync makes such an entry anew, and the machine sends attributes only if they differ from those of
    the entry in the basis, but nothing copies them from there (seen with 3.5.0). An entry without attributes in the
    basis cannot lose any. All others are fetched without a basis.
    """

    def __init__(self, trees: Sequence[Path], *, fake_super: bool) -> None:
        """With ``fake_super`` rsync stores such entries as files with attributes. Raises OSError."""
        self._fake_super = fake_super
        with ExitStack() as stack:
            self._trees = [stack.enter_context(SnapshotReader(tree, has_attributes=fake_super)) for tree in trees]
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._stack.close()

    def drops(self, path: bytes) -> bool:
        """Return True if one of the trees has an entry with attributes there that is no file or directory."""
        above, name = split(path)
        for tree in self._trees:
            directory = tree.find_directory(above)
            found = None if directory is None else tree.entry(directory, name)
            if found is not None and found.kind not in (FILE, DIRECTORY) and found.attributes != NO_ATTRIBUTES:
                return True
        return False

    def dropped_in(self, made: Path) -> Iterator[bytes]:
        """Yield the paths in a tree made by rsync whose attributes were dropped. Raises OSError."""
        if not self._trees:
            return
        with SnapshotReader(made) as tree:
            for each in tree.walk():
                is_candidate = self._fake_super if each.is_file else not each.is_directory
                if is_candidate and self.drops(each.full_path):
                    yield each.full_path


OnEntry = Callable[[ItemizedLine], None]
_SOURCE_PREFIX = b"./"
"""With this prefix rsync sends the source's own directory too, and takes no name for an option or a comment."""
NONEXISTENT_PREFIX = b".turku-nothing-"
"""Prefix of a random name that does not exist. rsync sends the source's own directory only if a name is listed."""
_END_OF_SESSION_SECONDS = 2.0
"""A lost agent takes tunnel and data stream along. Either may be noticed this long before the session's end."""


class TransferRejected(BackupFailed):
    """rsync could not do what was asked. A full run may succeed."""


class PartialTransfer(BackupFailed):
    """rsync transferred all but some files."""


def ignore_entry(_line: ItemizedLine) -> None:
    """Ignore the lines of a run whose changes are known from the dry run."""


@dataclass(frozen=True)
class SourceTransfer:
    """The transfers of one source from the machine to the storage."""

    job: BackupJob
    place: SourceDirectory
    configuration: StorageConfig
    mode: SnapshotMode
    options: TransferOptions
    run_limits: limits.RunLimits
    file_system: FileSystemSupport
    base: str | None
    """The snapshot that the next one is built upon."""
    earlier: Notes
    """The notes of the base."""
    damaged: Collection[bytes]
    """Paths of the base whose stored file is damaged, or differs from the machine's. They are transferred anyway."""
    attribute_comparison: AttributeComparison
    planned: ChangeLog
    """The differences from the base that the dry run reports."""
    changes: ChangeLog
    """The differences of the new tree from the base."""
    clock: Clock
    cancellation: Cancellation

    @property
    def existing_base(self) -> str:
        """``base``, for callers that know that there is one."""
        if self.base is None:
            raise ValueError("there is no snapshot yet")
        return self.base

    def with_options(self, **changes: Any) -> Self:
        """Return the same transfers with other options."""
        return replace(self, options=replace(self.options, **changes))

    @contextmanager
    def hardlink_copy(self) -> Iterator[HardlinkCopy | None]:
        """Yield the copy of the base, not begun yet. None if the mode does not need one."""
        if self.base is None or self.mode.shares_blocks or not self.mode.keeps_history:
            yield None
            return
        self.mode.discard_assembly()
        try:
            with HardlinkCopy(self.place.tree(self.base), self.place.assembling, self.check_directories) as copy:
                yield copy
        finally:
            # A committed tree has another name by now.
            self.mode.discard_assembly()

    def check_directories(self, count: int) -> None:
        """Check that our own code may make this many directories. Raises SpaceLimitExceeded."""
        limits.check_directories(self.run_limits, self.place.machine_dir, count)

    def may_be_incomplete(self, result: TransferResult) -> bool:
        """Return True if rsync transferred all but single entries, and named each of these."""
        return (
            result.exit_status.is_partial and self.job.order.incomplete != FAIL and result.file_errors.names_every_error
        )

    def named_files_with_holes(self, timeout_seconds: float) -> frozenset[bytes] | None:
        """Return the source's files that have holes. None if holes are not kept, or the agent cannot name them."""
        return self.job.files_with_holes(timeout_seconds) if self.options.holes else None

    def failure(self, result: TransferResult) -> BackupFailed:
        """Return the error for a failed run."""
        kind = BackupFailed
        if result.exit_status.is_request_failure:
            kind = TransferRejected
        elif result.exit_status.is_partial:
            kind = PartialTransfer
        return kind(result.exit_status.meaning, details="\n".join(result.last_lines))

    # --- entries that rsync must fetch without a basis

    def dropped_attributes(self, workspace: Workspace) -> DroppedAttributes:
        """Return the attributes in the workspace's basis that rsync would drop."""
        trees = workspace.basis if self.options.attributes else ()
        return DroppedAttributes(trees, fake_super=self.file_system.fake_super)

    def fetch_without_basis(
        self, workspace: Workspace, wanted: Iterable[Change], transferred: TransferResult, errors: FileErrors
    ) -> TransferResult:
        """Fetch the wanted entries without a basis. Return the result of the run before, with a failure of this one."""
        changes = iter(wanted)
        first = next(changes, None)
        if first is None:
            return transferred
        with self.files_from(chain([first], changes)) as listed:
            bare = replace(workspace, basis=(), is_new=False)
            fetched = self.transfer(bare, TransferScope(files_from=listed), ignore_entry)
        errors.add(fetched.file_errors)
        return replace(transferred, exit_status=fetched.exit_status) if fetched.exit_status.is_partial else transferred

    @contextmanager
    def files_from(self, changes: Iterable[Change]) -> Iterator[Path]:
        """Yield a file for ``--files-from`` with the paths of the changed entries, NUL after each.

        rsync transfers the directories above each entry with their times, the source's own among them. The dry run
        reports a directory in which something was deleted as changed. A deleted directory must not be listed.
        """
        path = self.place.fetch_list
        with os.fdopen(fs.create_file(path), "wb") as file:
            for change in changes:
                # The name of the directory itself would mean everything in it.
                if change.kind is not ChangeKind.DELETED and change.path != b"." and not change.link_target:
                    file.write(_SOURCE_PREFIX + change.path + b"\0")
            file.write(_SOURCE_PREFIX + nonexistent_name() + b"\0")
        try:
            yield path
        finally:
            fs.unlink(path)

    # --- running rsync

    def transfer(
        self,
        workspace: Workspace,
        scope: TransferScope,
        on_entry: OnEntry,
        *,
        before: "tuple[SourceTransfer, TransferScope] | None" = None,
    ) -> TransferResult:
        """Return the result of a complete transfer. Raises BackupFailed, possibly TransferRejected, for any other.

        The run ``before`` it transfers a part of the same tree, within the same limits. There is none without history.
        """
        if self.mode.keeps_history:
            if before is None:
                return self._transfer_once(workspace, scope, on_entry)
            source, part = before
            # The last run removes deleted entries.
            done = source._transfer_once(replace(workspace, is_resumed=False), part, on_entry)
            rest = replace(self, run_limits=self.run_limits.remaining(done.seconds, done.written_bytes))
            return rest._transfer_once(workspace, scope, on_entry).after(done)
        with Stack() as created:

            def note(line: ItemizedLine) -> None:
                on_entry(line)
                if line.is_new:
                    created.push(line.path)

            try:
                return self._transfer_once(workspace, scope, note)
            except BackupFailed as error:
                # It is the only tree, and was smaller before: new entries are removed again.
                if isinstance(error, limits.SpaceLimitExceeded) or self._lacks_space():
                    assembly.remove_created(workspace.directory, created)
                raise

    def _transfer_once(self, workspace: Workspace, scope: TransferScope, on_entry: OnEntry) -> TransferResult:
        try:
            transferred = self._within_bandwidth_windows(workspace, scope, on_entry)
            if not transferred.exit_status.success and not self.may_be_incomplete(transferred):
                raise self.failure(transferred)
            return transferred
        except BaseException as error:
            if isinstance(error, limits.SpaceLimitExceeded) or self._lacks_space():
                # The next run would start from it, but others need the space more (threats M11).
                self.mode.discard_staging()
            raise

    def _lacks_space(self) -> bool:
        return limits.lacks_space(self.configuration.disk, self.place.machine_dir)

    def _within_bandwidth_windows(
        self, workspace: Workspace, scope: TransferScope, on_entry: OnEntry
    ) -> TransferResult:
        """Return the result of a transfer under the bandwidth limits of each time of day."""
        if self.options.bandwidth_limits.changes:
            # A further part finds the files of the part before it.
            workspace = replace(workspace, is_new=False)

        def part(options: TransferOptions, run_limits: limits.RunLimits) -> TransferResult:
            return replace(self, options=options, run_limits=run_limits).run(workspace, scope, on_entry)

        # Without history the tree is the only copy: half a file must not take a whole one's place.
        options = replace(self.options, keep_partial_files=self.mode.keeps_history)
        return bandwidth_windows.run(options, self.run_limits, part, configuration=self.configuration, clock=self.clock)

    def run(self, workspace: Workspace, scope: TransferScope, on_entry: OnEntry) -> TransferResult:
        """Run rsync once and return its result, whatever it is. Raises as ``rsync.run`` does."""
        try:
            result = rsync_run.run(
                self.configuration,
                self.job.daemon,
                self.options,
                workspace,
                self.file_system,
                machine_dir=self.place.machine_dir,
                run_limits=self.run_limits,
                base=self.place.tree(self.base) if self.base and self.mode.keeps_history else None,
                scope=scope,
                on_entry=on_entry,
                spooled_bytes=lambda: self.planned.size_bytes + self.changes.size_bytes,
                cancellation=self.cancellation,
            )
        except DaemonUnreachable:
            self._await_end_of_session()
            raise
        if result.exit_status.is_connection_failure:
            self._await_end_of_session()
        return result

    def _await_end_of_session(self) -> None:
        if self.cancellation is not NEVER:
            self.cancellation.wait(_END_OF_SESSION_SECONDS)


def nonexistent_name() -> bytes:
    """Return a random name that no source has."""
    return NONEXISTENT_PREFIX + secrets.token_hex(16).encode()
