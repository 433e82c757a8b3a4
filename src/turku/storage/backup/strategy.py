"""How a source is backed up: its plan says what differs from the newest snapshot, and that alone is fetched.

1. Plan: a dry run against the base, everything read-only, says what is new, changed and deleted.
2. Fetch: rsync writes what differs into the staging directory, which shares no file with a snapshot.
3. Assemble: our own code makes the new tree from the base and the staging directory (``snapshots/assembly.py``).

A first run fetches everything, and its staging directory is the tree. So does a run whose base is of no use; what is
as it was becomes the base's own files again. Modes that share blocks, and the mode without history, have rsync change
a tree of their own in place.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import chain
from pathlib import Path

from turku.core.cancellation import NEVER, Cancellation
from turku.core.clock import SYSTEM_CLOCK, Clock
from turku.core.log import one_line
from turku.core.spool import Stack
from turku.errors import BackupFailed
from turku.storage import catalog
from turku.storage.backup.changed_entries import ChangedEntries
from turku.storage.backup.dropped_attributes import DroppedAttributes
from turku.storage.config.model import StorageConfig
from turku.storage.containment import daemon_connection, limits, quota
from turku.storage.disk.source_directory import SourceDirectory
from turku.storage.fs import tree as fs
from turku.storage.fs.remove import remove_tree
from turku.storage.rsync import bandwidth_windows, stats
from turku.storage.rsync import run as rsync_run
from turku.storage.rsync.change_log import Change, ChangeKind, ChangeLog, ItemizedLine
from turku.storage.rsync.file_errors import FileErrors
from turku.storage.rsync.file_system_support import FileSystemSupport
from turku.storage.rsync.request import WHOLE_SOURCE, RsyncDaemon, TransferOptions, TransferScope, should_list_first
from turku.storage.rsync.result import TransferResult
from turku.storage.rsync.workspace import Workspace
from turku.storage.snapshots import SnapshotMode, assembly, rsync_inplace
from turku.storage.snapshots.assembly import HardlinkCopy, IncrementalFailed
from turku.storage.snapshots.hard_links import TooManyFiles, find_other_names

_LOG = logging.getLogger(__name__)
_HERE = b"./"
"""With it rsync sends what the source's own directory is like, and takes no name for an option or a comment."""
_CHANGED_ENTRIES_SECONDS = 15.0
_FILES_WITH_HOLES_SECONDS = 60.0
"""Before a full run, which takes much longer with a look for holes in all files."""
_CLEANING_SECONDS = 0.5
_END_OF_SESSION_SECONDS = 2.0
"""An agent that is gone takes tunnel and data stream along. Either may be noticed so long before the session's end."""
_NOTHING_DELETED = "nothing was taken for deleted, as too much could not be read"
_NOTHING_PREFIX = b".turku-nothing-"
"""A name drawn by lot begins with it. It is not there: some must be said for the source's own directory to come."""


class BackupStrategy(StrEnum):
    """What a run did."""

    UNCHANGED = "unchanged"
    """Nothing differed, and nothing was fetched."""
    INCREMENTAL = "incremental"
    """What differed was fetched, and the rest taken from the base."""
    FULL = "full"
    """Everything was looked at, and fetched unless the base has it."""
    IN_PLACE = "in-place"
    """rsync changed a tree of its own in place."""


class TransferRejected(BackupFailed):
    """rsync could not do what it was asked for; asked for everything it may."""


class PartialTransfer(BackupFailed):
    """rsync brought all but some files."""


@dataclass(frozen=True)
class SyncResult:
    """A complete tree, ready to be committed."""

    transferred: TransferResult
    tree: Path
    strategy: BackupStrategy
    reason: str = ""
    """Why it was a full run although there is a base."""
    file_errors: FileErrors = field(default_factory=FileErrors)
    """What rsync said of single entries, in all runs together."""
    compared_all_attributes: bool = True
    """False where only those of entries were compared that the agent named."""
    includes_earlier_run: bool = False
    """True where some of it had been brought by runs before, so that rsync's statistics do not tell all."""


@dataclass(frozen=True)
class DryRunResult:
    """What a dry run said about the base; ``refusal`` says why it is of no use."""

    compared: TransferResult | None = None
    refusal: str = ""
    mishaps: FileErrors = field(default_factory=FileErrors)
    has_compared_attributes: bool = True
    """False where only those of entries were compared that the agent named."""


@dataclass(frozen=True)
class AttributeComparison:
    """How a plan finds out about changed ACLs and extended attributes.

    Comparing those of every entry takes as long as all else. A change of one always moves the entry's change time,
    which the agent can look at. A machine that names too few harms its own backups only.
    """

    since_ns: int | None = None
    """The machine's clock at the session that made the base, in Unix nanoseconds. None: all are compared."""
    changed_entries: Callable[[float], ChangedEntries | None] = lambda _timeout_seconds: None
    """Waits so many seconds for the entries that changed lately; None where the agent cannot tell."""


@dataclass(frozen=True)
class Sync:
    """One backup's way from the machine to a complete tree."""

    place: SourceDirectory
    configuration: StorageConfig
    daemon: RsyncDaemon
    mode: SnapshotMode
    options: TransferOptions
    run_limits: limits.RunLimits
    file_system: FileSystemSupport
    base: str | None
    """The snapshot that the next one is built upon."""
    base_files: int | None = None
    """The number of its files. None is not known."""
    expects_changes: bool = False
    """True where the base is copied from the beginning, and not from the first difference on."""
    damaged: Collection[bytes] = ()
    """Paths of the base whose stored file is damaged, or not what the machine has: they are fetched whatever size and
    time say."""
    compares_base: bool = False
    """True where the content of files in the base is compared too, as the source asks for."""
    attribute_comparison: AttributeComparison = field(default_factory=AttributeComparison)
    files_with_holes: Callable[[float], frozenset[bytes] | None] = lambda _timeout_seconds: None
    """Waits so many seconds for the source's files that have holes; None where the agent cannot tell."""
    keeps_incomplete: bool = True
    """False where a run that could not read everything is to fail, as the source asks for."""
    spools: tuple[ChangeLog, ...] = ()
    """What is told of the run is in them, on the volume."""
    clock: Clock = SYSTEM_CLOCK
    cancellation: Cancellation = NEVER

    @property
    def existing_base(self) -> str:
        """``base``, where the caller knows that there is one."""
        if self.base is None:
            raise ValueError("there is no snapshot yet")
        return self.base

    @contextmanager
    def hardlink_copy(self) -> Iterator[HardlinkCopy | None]:
        """What copies the base, once it is begun; None where it is of no use."""
        if self.base is None or self.mode.shares_blocks or not self.mode.keeps_history:
            yield None
            return
        self.mode.discard_assembly()
        try:
            with HardlinkCopy(self.place.tree(self.base), self.place.assembling, self._check_directories) as copy:
                yield copy
        finally:
            # Where it was committed, it has another name by now.
            self.mode.discard_assembly()

    def _check_directories(self, count: int) -> None:
        limits.check_directories(self.run_limits, self.place.machine_dir, count)

    def _other_names(self, planned: ChangeLog) -> set[bytes]:
        """Return further names of files that changed while their size and time stayed, which rsync does not tell of:
        what it compares is the first name of a file. Raises TooManyFiles."""
        if self.base is None or not (self.compares_base and self.options.hard_links):
            return set()
        changed = find_other_names(self.place.tree(self.base), (each.path for each in planned if each.is_file))
        return changed - {each.path for each in planned} if changed else changed

    def plan(self, planned: ChangeLog, copy: HardlinkCopy | None) -> DryRunResult:
        """Compare the source with the base by a dry run; ``planned`` is filled. Raises as ``bring`` does."""
        if self.base is None or not self.mode.keeps_history:
            return DryRunResult()

        if copy is not None and self.expects_changes:
            copy.begin()
        damaged = set(self.damaged)
        unresolved: list[bytes] = []

        def note(line: ItemizedLine) -> None:
            if copy is not None:
                copy.begin()
            damaged.discard(line.path)
            if line.is_linked and not line.link_target:
                unresolved[:] = [line.path]
            planned.add_line(line)

        # The base is on the disk: it is what a run left that may be there without its content.
        believing = replace(self, options=replace(self.options, compare_contents=self.compares_base))
        workspace = Workspace(self.place.tree(self.base))
        compared, has_compared_attributes = believing._compared(workspace, planned, note)
        mishaps = compared.file_errors
        if self._may_be_incomplete(compared):
            # rsync took nothing for deleted. Asked again, it does, but for what is where it could see nothing.
            unreadable = mishaps.hidden_paths
            if unreadable and mishaps.can_be_protected:
                planned.clear()
                protecting = replace(believing, options=replace(believing.options, unreadable_paths=unreadable))
                compared, has_compared_attributes = protecting._compared(workspace, planned, note)
                mishaps.add(compared.file_errors)
            elif not mishaps.can_be_protected:
                mishaps.add_warning(_NOTHING_DELETED)
        is_partial = self._may_be_incomplete(compared)
        if not compared.exit_status.success and not compared.exit_status.is_request_failure and not is_partial:
            raise self._failed(compared)
        if compared.exit_status.meaning != "complete" and not is_partial:
            refusal = f"the dry run ended so: {compared.exit_status.meaning}"
        elif not compared.all_lines_parsed or stats.from_run(compared.statistics, compared.suffixes, None) is None:
            refusal = "the dry run said what is not understood"
        elif unresolved:
            refusal = f"rsync did not say which file {one_line(unresolved[0])} is a further name of"
        else:
            try:
                damaged |= self._other_names(planned)
            except TooManyFiles:
                planned.clear()
                return DryRunResult(refusal="more files changed than those whose other names can be looked for")
            for path in sorted(damaged):
                planned.add(Change(path, ChangeKind.CHANGED))
            return DryRunResult(compared, mishaps=mishaps, has_compared_attributes=has_compared_attributes)
        planned.clear()
        return DryRunResult(refusal=refusal)

    def _compared(
        self, workspace: Workspace, planned: ChangeLog, note: Callable[[ItemizedLine], None]
    ) -> tuple[TransferResult, bool]:
        """Return what a dry run said, and True where it compared the attributes of everything.

        Elsewhere those of the entries are compared whose change time moved, as the agent says; where it cannot say, the
        dry run is made again.
        """
        extent = TransferScope(
            is_dry_run=True,
            lists_first=should_list_first(self.base_files),
            compares_attributes=self.attribute_comparison.since_ns is None,
        )
        compared = self._run(workspace, extent, note)
        is_usable = compared.exit_status.success or self._may_be_incomplete(compared)
        if extent.compares_attributes or not is_usable:
            return compared, extent.compares_attributes
        paths = self._changed_attributes(planned, compared.seconds)
        if paths is None:
            planned.clear()
            again = self._run(workspace, replace(extent, compares_attributes=True), note)
            again.file_errors.add(compared.file_errors)
            return again, True
        if paths:
            with self._listed(Change(path, ChangeKind.CHANGED) for path in paths) as listed:
                looked = self._run(workspace, TransferScope(is_dry_run=True, files_from=listed), note)
            compared.file_errors.add(looked.file_errors)
            if not looked.exit_status.success:
                compared = replace(compared, exit_status=looked.exit_status)
        return compared, False

    def _changed_attributes(self, planned: ChangeLog, plan_seconds: float) -> list[bytes] | None:
        """Return the entries, beside those planned, whose attributes may have changed since the base was made.

        None where the agent cannot tell.
        """
        since_ns = self.attribute_comparison.since_ns
        timeout_seconds = max(_CHANGED_ENTRIES_SECONDS, 2 * plan_seconds)
        told = self.attribute_comparison.changed_entries(timeout_seconds)
        if since_ns is None or told is None or told.since_ns > since_ns:
            return None
        paths = dict.fromkeys(told.paths)
        for change in planned:
            paths.pop(change.path, None)
        return list(paths)

    def bring(
        self,
        plan: DryRunResult,
        planned: ChangeLog,
        changes: ChangeLog,
        copy: HardlinkCopy | None,
        indexer: catalog.StreamingIndexer | None = None,
    ) -> SyncResult:
        """Return a complete tree; ``changes`` are filled, and the indexer is told of a tree that is all new.

        Raises BackupFailed for any other outcome.
        """
        reason = plan.refusal
        if plan.compared is not None and copy is not None:
            try:
                return self._incremental_or_replanned(plan, planned, changes, copy)
            except (IncrementalFailed, TransferRejected) as error:
                reason = str(error)
                changes.clear()
        if copy is not None:
            copy.end()
        return self._whole(self.mode.prepare(self.base), reason, planned, changes, indexer)

    def _may_be_incomplete(self, transferred: TransferResult) -> bool:
        """Return True where single entries did not come, each of which rsync named, and all else did."""
        return (
            transferred.exit_status.is_partial and self.keeps_incomplete and transferred.file_errors.names_every_error
        )

    def _incremental_or_replanned(
        self, plan: DryRunResult, planned: ChangeLog, changes: ChangeLog, copy: HardlinkCopy
    ) -> SyncResult:
        try:
            return self._incremental(self.mode.prepare(self.base), plan, planned, changes, copy)
        except PartialTransfer:
            # A directory that became a file since the plan: the next plan tells.
            planned.clear()
            replanned = self.plan(planned, copy)
            if replanned.compared is None:
                raise
            return self._incremental(self.mode.prepare(self.base), replanned, planned, changes, copy)

    def _incremental(
        self, workspace: Workspace, plan: DryRunResult, planned: ChangeLog, changes: ChangeLog, copy: HardlinkCopy
    ) -> SyncResult:
        compared = plan.compared
        if compared is None:
            raise ValueError("there is no plan")
        mishaps = plan.mishaps
        copy.begin()
        with self._basis(workspace) as basis:

            def is_apart(change: Change) -> bool:
                return change.path in self.damaged or (not change.is_file and basis.drops(change.path))

            transferred = self._fetched(workspace, planned, is_apart, mishaps)
            others = (each for each in planned if each.path not in self.damaged and is_apart(each))
            damaged = (Change(path, ChangeKind.CHANGED) for path in sorted(self.damaged))
            # What the storage has of damaged files is not to be read, let alone copied.
            transferred = self._without_basis(workspace, chain(damaged, others), transferred, mishaps)
        if self.damaged:
            _LOG.info(
                "%s: %d files were fetched anew, as the kept ones are damaged or not what the machine has",
                self.place.source,
                len(self.damaged),
            )

        if mishaps.entries and all(change.path in mishaps.entries for change in planned):
            # Nothing came that the base does not have.
            changes.lists_every_change = True
            remove_tree(workspace.directory, lambda: True)
            tree = self.place.tree(self.existing_base)
            return SyncResult(
                compared.with_amounts_of(transferred),
                tree,
                BackupStrategy.UNCHANGED,
                file_errors=mishaps,
                compared_all_attributes=plan.has_compared_attributes,
            )

        def tell_deleted(path: bytes) -> None:
            changes.add(Change(path, ChangeKind.DELETED))

        # Where something could not be read, an entry that did not come is not gone, unless rsync says so.
        is_partial = transferred.exit_status.is_partial
        try:
            copy.finish(self.cancellation)
            made = copy.directories + assembly.apply(
                workspace.directory,
                copy.tree,
                planned,
                tell_deleted,
                stays=lambda path: is_partial and path not in mishaps.vanished,
            )
            self._check_directories(made)
        except limits.SpaceLimitExceeded:
            self.mode.discard_staging()
            raise
        quota.record_usage(self.configuration, self.place.machine_dir, made * limits.DIRECTORY_BYTES)
        for change in planned:
            changes.add(change)
        # Directories alone are left there, and no more of them than changed.
        end = self.clock.monotonic_seconds() + _CLEANING_SECONDS
        remove_tree(workspace.directory, lambda: self.clock.monotonic_seconds() < end)
        changes.lists_every_change = changes.lists_every_written_file = True
        return SyncResult(
            compared.with_amounts_of(transferred),
            copy.tree,
            BackupStrategy.INCREMENTAL,
            file_errors=mishaps,
            compared_all_attributes=plan.has_compared_attributes,
            includes_earlier_run=workspace.is_resumed,
        )

    def _fetched(
        self, workspace: Workspace, planned: ChangeLog, is_apart: Callable[[Change], bool], mishaps: FileErrors
    ) -> TransferResult:
        """Fetch what is planned and not apart, files with holes by themselves (``_everything``)."""
        with_holes = self._with_holes(_CHANGED_ENTRIES_SECONDS)
        runs: list[tuple[Sync, Callable[[Change], bool]]] = [(self, lambda _change: True)]
        if with_holes is not None:
            named = with_holes
            runs = [(self._without_holes, lambda change: change.path not in named)]
            if any(change.path in named for change in planned):
                runs.append((self, lambda change: change.path in named))
        transferred: TransferResult | None = None
        for sync, is_wanted in runs:
            with self._listed(each for each in planned if is_wanted(each) and not is_apart(each)) as listed:
                fetched = sync._transfer(workspace, TransferScope(files_from=listed), lambda _line: None)
            mishaps.add(fetched.file_errors)
            if transferred is not None:
                outcome = transferred.exit_status if transferred.exit_status.is_partial else fetched.exit_status
                fetched = replace(fetched.after(transferred), exit_status=outcome)
            transferred = fetched
        if transferred is None:
            raise ValueError("there is always one run")
        return transferred

    def _basis(self, workspace: Workspace) -> DroppedAttributes:
        """Return what rsync compares with, as far as it leaves out attributes for it."""
        trees = workspace.basis if self.options.attributes else ()
        return DroppedAttributes(trees, fake_super=self.file_system.fake_super)

    def _without_basis(
        self, workspace: Workspace, wanted: Iterable[Change], transferred: TransferResult, mishaps: FileErrors
    ) -> TransferResult:
        """Fetch what is wanted without anything to compare with; return what came of it with the run before."""
        changes = iter(wanted)
        first = next(changes, None)
        if first is None:
            return transferred
        with self._listed(chain([first], changes)) as listed:
            bare = replace(workspace, basis=(), is_new=False)
            fetched = self._transfer(bare, TransferScope(files_from=listed), lambda _line: None)
        mishaps.add(fetched.file_errors)
        return replace(transferred, exit_status=fetched.exit_status) if fetched.exit_status.is_partial else transferred

    def _whole(
        self,
        workspace: Workspace,
        reason: str,
        planned: ChangeLog,
        changes: ChangeLog,
        indexer: catalog.StreamingIndexer | None,
    ) -> SyncResult:
        has_former = workspace.is_resumed or len(workspace.basis) > (self.base is not None)
        if indexer is not None and not has_former:
            indexer.begin(workspace.directory, changes, has_attributes=self.file_system.fake_super)
        is_in_place = self.mode.shares_blocks or not self.mode.keeps_history
        if self.damaged:
            # Neither what is there nor another tree is to stand for them.
            workspace = replace(workspace, basis=())
            if is_in_place:
                assembly.remove(workspace.directory, self.damaged)
        assembled_base = None if is_in_place else self.base
        if assembled_base is not None:
            _LOG.warning("%s: this is a full run: %s", self.place.source, reason)
        try:
            fetching, transferred = self._everything(workspace, planned, changes.add_line)
            mishaps = transferred.file_errors
            if transferred.exit_status.is_partial and (is_in_place or has_former):
                # What is gone is still there.
                again = replace(workspace, is_new=False)
                transferred, mishaps = fetching._deleted_too(again, transferred, changes)
            with self._basis(workspace) as basis:
                left_out = (Change(path, ChangeKind.CHANGED) for path in basis.dropped_in(workspace.directory))
                transferred = self._without_basis(workspace, left_out, transferred, mishaps)
        except BackupFailed as error:
            if reason:
                error.details = "\n".join(part for part in (f"it was a full run: {reason}", error.details) if part)
            raise
        built = workspace.directory
        if assembled_base is not None:
            # From here on it shares files with the base: what a killed run leaves of it must never be written into.
            self.mode.discard_assembly()
            fs.move_directory(built, self.place.assembling)
            built = self.place.assembling
            assembly.share_unchanged(
                self.place.tree(assembled_base),
                built,
                compares_contents=self.options.compare_contents or bool(self.damaged),
            )
            if mishaps.unnamed_count:
                raise BackupFailed(
                    f"{transferred.exit_status.meaning}, and rsync did not say which",
                    details="\n".join(transferred.last_lines),
                )
            assembly.take_from_base(self.place.tree(assembled_base), built, mishaps.entries)
        # Where the staging directory was empty, rsync is not told what it need not delete.
        tells_deletions = self.base is None or self.mode.shares_blocks
        changes.lists_every_change = transferred.all_lines_parsed and tells_deletions and not has_former
        # A file that a run before wrote may have the size and time of the base's by now, so that this one says nothing.
        changes.lists_every_written_file = transferred.all_lines_parsed and not has_former
        return SyncResult(
            transferred,
            built,
            BackupStrategy.IN_PLACE if is_in_place else BackupStrategy.FULL,
            reason,
            file_errors=mishaps,
            includes_earlier_run=has_former or transferred.was_restarted,
        )

    def _everything(
        self, workspace: Workspace, planned: ChangeLog, on_entry: Callable[[ItemizedLine], None]
    ) -> tuple[Sync, TransferResult]:
        """Go through all of the source; return what came of it, and what further runs over the same tree are made by.

        Asked for holes, rsync writes each kilobyte by itself, which takes twice as long, and digs one for each few
        zeros in a file that is there, so that an earlier snapshot shares those blocks no more. So files that have holes
        are fetched first and by themselves, where the machine names them. Where it does not, large files that changed
        in place are. Of those that are there, new holes are dug by our own code.
        """
        # Without history the only tree is to be incomplete for one run, and not for two.
        with_holes = self._with_holes(_FILES_WITH_HOLES_SECONDS) if self.mode.keeps_history else None
        writes_in_place = workspace.writes_in_place and self.file_system.opens_read_only_files
        if not self.options.holes or (with_holes is None and not writes_in_place):
            return self, self._transfer(workspace, WHOLE_SOURCE, on_entry)
        paths: Iterable[bytes] = with_holes or ()
        if with_holes is None:
            paths = (each.path for each in planned if each.is_file and not each.link_target)
        in_place = rsync_inplace.large_files(workspace.directory, paths) if writes_in_place else []
        digging, plain = self, self._without_holes
        if with_holes is None:
            first, later, listed_first = plain, digging, in_place
        else:
            first, later, listed_first = digging, plain, sorted(with_holes.difference(in_place))
        # A name that is one more of a file might be written through, were it another file's by the time of the rest.
        first = replace(first, options=replace(first.options, hard_links=False))
        with ExitStack() as stack:
            before = []
            if listed_first:
                listed = stack.enter_context(self._listed(Change(path, ChangeKind.CHANGED) for path in listed_first))
                before.append((first, TransferScope(files_from=listed, compares_attributes=False)))
            transferred = later._transfer(workspace, WHOLE_SOURCE, on_entry, before=before)
        rsync_inplace.punch_holes(workspace.directory, in_place)
        return later, transferred

    def _with_holes(self, timeout_seconds: float) -> frozenset[bytes] | None:
        """Return the source's files that have holes; None where the machine does not say, or nobody wants to know."""
        return self.files_with_holes(timeout_seconds) if self.options.holes else None

    @property
    def _without_holes(self) -> Sync:
        return replace(self, options=replace(self.options, holes=False))

    def _deleted_too(
        self, workspace: Workspace, transferred: TransferResult, changes: ChangeLog
    ) -> tuple[TransferResult, FileErrors]:
        """Have what is gone removed, which rsync does not where it could not read everything.

        What lies where it could see nothing stays. Return the run with the statistics of the first one.
        """
        mishaps = transferred.file_errors
        unreadable = mishaps.hidden_paths or (_NOTHING_PREFIX + secrets.token_hex(16).encode(),)
        if not mishaps.can_be_protected:
            mishaps.add_warning(_NOTHING_DELETED)
            return transferred, mishaps
        again = replace(self, options=replace(self.options, unreadable_paths=unreadable))
        later = again._transfer(workspace, WHOLE_SOURCE, changes.add_line)
        mishaps.add(later.file_errors)
        return transferred, mishaps

    @contextmanager
    def _listed(self, planned: Iterable[Change]) -> Iterator[Path]:
        """A file with what is to be transferred, NUL after each: what changed.

        rsync transfers the directories above each, with their times. The source's own is among them. Of a directory in
        which something was deleted the plan says that its time differs; one that is gone must not be named.
        """
        path = self.place.fetch_list
        with os.fdopen(fs.create_file(path), "wb") as file:
            for change in planned:
                # The name of the directory itself would mean everything in it.
                if change.kind is not ChangeKind.DELETED and change.path != b"." and not change.link_target:
                    file.write(_HERE + change.path + b"\0")
            file.write(_HERE + _NOTHING_PREFIX + secrets.token_hex(16).encode() + b"\0")
        try:
            yield path
        finally:
            fs.unlink(path)

    def _transfer(
        self,
        workspace: Workspace,
        extent: TransferScope,
        on_entry: Callable[[ItemizedLine], None],
        *,
        before: Sequence[tuple[Sync, TransferScope]] = (),
    ) -> TransferResult:
        """Return what came of a complete transfer. Raises BackupFailed for any other, be it NotUnderstood.

        The runs ``before`` it bring a part of the same, within the same bounds; there are none without history.
        """
        if self.mode.keeps_history:
            bounds, earlier = self.run_limits, None
            # What is gone is removed by the last one.
            partly = replace(workspace, is_resumed=False)
            for sync, part in before:
                done = replace(sync, run_limits=bounds)._transfer_once(partly, part, on_entry)
                bounds = bounds.remaining(done.seconds, done.written_bytes)
                earlier = done if earlier is None else done.after(earlier)
            transferred = replace(self, run_limits=bounds)._transfer_once(workspace, extent, on_entry)
            return transferred if earlier is None else transferred.after(earlier)
        with Stack() as created:

            def note(line: ItemizedLine) -> None:
                on_entry(line)
                if line.is_new:
                    created.push(line.path)

            try:
                return self._transfer_once(workspace, extent, note)
            except BackupFailed as error:
                # It is the only tree, and was smaller before: what is new in it goes again.
                took_too_much = isinstance(error, limits.SpaceLimitExceeded)
                if took_too_much or limits.lacks_space(self.configuration, self.place.machine_dir):
                    assembly.remove_created(workspace.directory, created)
                raise

    def _transfer_once(
        self, workspace: Workspace, extent: TransferScope, on_entry: Callable[[ItemizedLine], None]
    ) -> TransferResult:
        is_complete = took_too_much = False
        try:
            transferred = self._paced(workspace, extent, on_entry)
            if not transferred.exit_status.success and not self._may_be_incomplete(transferred):
                raise self._failed(transferred)
            is_complete = True
            return transferred
        except limits.SpaceLimitExceeded:
            took_too_much = True
            raise
        finally:
            if not is_complete and (took_too_much or limits.lacks_space(self.configuration, self.place.machine_dir)):
                # The next run would start from it; others need the room more (threats M11).
                self.mode.discard_staging()

    def _failed(self, transferred: TransferResult) -> BackupFailed:
        kind = BackupFailed
        if transferred.exit_status.is_request_failure:
            kind = TransferRejected
        elif transferred.exit_status.is_partial:
            kind = PartialTransfer
        return kind(transferred.exit_status.meaning, details="\n".join(transferred.last_lines))

    def _paced(
        self, workspace: Workspace, extent: TransferScope, on_entry: Callable[[ItemizedLine], None]
    ) -> TransferResult:
        """Return what came of it, under the bandwidth limits of the times of day that it goes on for."""

        if self.options.bandwidth_limits.changes:
            # A further part finds what the one before it brought.
            workspace = replace(workspace, is_new=False)

        def part(options: TransferOptions, run_limits: limits.RunLimits) -> TransferResult:
            return replace(self, options=options, run_limits=run_limits)._run(workspace, extent, on_entry)

        # Without history the tree is the only copy: half a file must not take a whole one's place.
        selected = replace(self.options, keep_partial_files=self.mode.keeps_history)
        return bandwidth_windows.run(
            selected, self.run_limits, part, configuration=self.configuration, clock=self.clock
        )

    def _run(
        self, workspace: Workspace, extent: TransferScope, on_entry: Callable[[ItemizedLine], None]
    ) -> TransferResult:
        try:
            transferred = self._started(workspace, extent, on_entry)
        except daemon_connection.DaemonUnreachable:
            self._await_end_of_session()
            raise
        if transferred.exit_status.is_connection_failure:
            self._await_end_of_session()
        return transferred

    def _await_end_of_session(self) -> None:
        if self.cancellation is not NEVER:
            self.cancellation.wait(_END_OF_SESSION_SECONDS)

    def _started(
        self, workspace: Workspace, extent: TransferScope, on_entry: Callable[[ItemizedLine], None]
    ) -> TransferResult:
        return rsync_run.run(
            self.configuration,
            self.daemon,
            self.options,
            workspace,
            self.file_system,
            machine_dir=self.place.machine_dir,
            run_limits=self.run_limits,
            base=self.place.tree(self.base) if self.base and self.mode.keeps_history else None,
            scope=extent,
            on_entry=on_entry,
            spooled_bytes=lambda: sum(spool.size_bytes for spool in self.spools),
            cancellation=self.cancellation,
        )

    def indexer(self) -> AbstractContextManager[catalog.StreamingIndexer | None]:
        """Return what reads a first backup's tree for the catalog while it is fetched; None where it is of no use."""
        # In place there is no history.
        if self.base is None and self.mode.keeps_history:
            return catalog.stream_index(self.place)
        return nullcontext()
