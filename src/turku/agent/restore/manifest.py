"""The manifest of a restore: the storage's list of the paths that it restores, asked for without any transfer.

For ``--compare-contents`` and ``--dry-run`` the target is compared with it on this machine.
"""

import os
import stat
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from typing import Literal

import xxhash

from turku.agent.capture import excluded_paths, own_paths
from turku.agent.capture.own_paths import NO_OWN_PATHS
from turku.agent.config.model import AgentConfig
from turku.agent.restore import session
from turku.agent.restore.file_metadata import link_target
from turku.agent.restore.job import PlannedRestore, RestoreJob, planned_restore
from turku.agent.state import staging_records
from turku.agent.tunnel.trusted_storages import Address
from turku.core.cli import shell_words
from turku.core.filesystem import directory_tree
from turku.core.filesystem.directory_tree import DirectoryTree
from turku.core.filesystem.spool import BloomFilter
from turku.errors import InvalidValue, MalformedMessage
from turku.policy import names
from turku.protocol.restore_messages import (
    Answer,
    HistoryRequest,
    Manifest,
    ManifestEntry,
    RestoreEnd,
    RestorePlan,
    SnapshotChoice,
    WirePath,
    path_bytes,
    time_ns,
)

_TIMEOUT_SECONDS = 24 * 3600.0
_DRY_RUN_TIMEOUT_SECONDS = 3600.0
_CHUNK_BYTES = 1024 * 1024
_NO_TARGET = -1

DryRunStep = Literal["create", "replace", "keep", "same", "delete", "lose"]


def request(agent: AgentConfig, job: RestoreJob, address: Address, *, timeout_seconds: float) -> Iterator[Answer]:
    """Yield the storage's answers to a request that lists and restores nothing. The last one is a RestoreEnd.

    Raises CommandFailed where the answers end early, and as ``run.restore`` does.
    """
    message = HistoryRequest("restore_files", restore_files=job.message(agent, list_only=True))
    return session.ask(agent, address, message, last=RestoreEnd, timeout_seconds=timeout_seconds)


def checked_path(path: WirePath, of: str = "manifest") -> bytes:
    """Return a path that a storage sent, relative to the source. Raises MalformedMessage for an invalid one."""
    try:
        return names.path_inside(path_bytes(path))
    except InvalidValue as error:
        raise MalformedMessage(f"the storage's {of}: {error.message}") from error


def find_differing(agent: AgentConfig, job: RestoreJob, address: Address) -> tuple[RestoreJob, Collection[bytes]]:
    """Return the job, fixed to one snapshot, and the paths of files that must be sent although they look unchanged.

    Without ``compare_contents`` there are no such paths. Raises as ``run.restore`` does.
    """
    if not job.compare_contents or job.target is None or job.overwrite == "never":
        return job, ()
    try:
        root = os.open(job.target, directory_tree.DIRECTORY_FLAGS)
    except OSError:
        return job, ()
    try:
        return _compare(agent, job, address, root)
    finally:
        os.close(root)


def _compare(agent: AgentConfig, job: RestoreJob, address: Address, root: int) -> tuple[RestoreJob, Collection[bytes]]:
    # At most as many as the target has files, whatever the storage lists.
    differing: set[bytes] = set()
    fixed = job
    for answer in request(agent, job, address, timeout_seconds=_TIMEOUT_SECONDS):
        if isinstance(answer, RestorePlan):
            snapshot = planned_restore(agent.state, job, answer, address.name).snapshot
            if not job.snapshot.is_unfinished:
                fixed = replace(job, snapshot=SnapshotChoice(name=snapshot))
        elif isinstance(answer, Manifest):
            for entry in answer.entries:
                path = checked_path(entry.path)
                if not _can_trust_metadata(root, path, entry):
                    differing.add(path)
    return fixed, differing


def _can_trust_metadata(root: int, path: bytes, entry: ManifestEntry) -> bool:
    """Return False for a file whose size and time are the backup's and whose content is not."""
    if entry.kind != "file":
        return True
    with suppress(OSError):
        found = directory_tree.status(root, path)
        if found is None or not stat.S_ISREG(found.st_mode):
            return True
        if (found.st_size, found.st_mtime_ns) != (entry.size_bytes, time_ns(entry.modified)):
            return True
        return checksum_of(directory_tree.open_file(root, path)) == entry.checksum
    return False


def checksum_of(descriptor: int) -> bytes:
    """Return the xxh128 checksum of an open file, and close it. Raises OSError."""
    try:
        hasher = xxhash.xxh128()
        while chunk := os.read(descriptor, _CHUNK_BYTES):
            hasher.update(chunk)
        return hasher.digest()
    finally:
        os.close(descriptor)


def dry_run_lines(agent: AgentConfig, job: RestoreJob) -> Iterator[str]:
    """Yield a line for each path that would be written or deleted, and then the sum. Raises as ``run.restore`` does."""
    with closing(_DryRun(agent, job)) as dry_run:
        yield from dry_run.lines()


class _DryRun:
    def __init__(self, agent: AgentConfig, job: RestoreJob) -> None:
        self._agent = agent
        self._job = job
        self._root = _NO_TARGET
        self._own = NO_OWN_PATHS
        self._counts: Counter[DryRunStep] = Counter()
        # A filter, as its memory does not grow with the number of files that a storage lists.
        self._listed = BloomFilter()

    def close(self) -> None:
        if self._root != _NO_TARGET:
            os.close(self._root)

    def lines(self) -> Iterator[str]:
        address = session.trusted_address(self._agent, self._job.storage)
        plan: PlannedRestore | None = None
        for answer in request(self._agent, self._job, address, timeout_seconds=_DRY_RUN_TIMEOUT_SECONDS):
            if isinstance(answer, RestorePlan) and plan is None:
                plan = planned_restore(self._agent.state, self._job, answer, address.name)
                self._own = own_paths.in_target(self._agent, plan.target)
                yield from (f"note: {remark}" for remark in plan.remarks)
                with suppress(OSError):
                    self._root = os.open(plan.target, directory_tree.DIRECTORY_FLAGS)
            elif isinstance(answer, Manifest) and plan is not None:
                yield from self._manifest_lines(answer)
            elif isinstance(answer, RestoreEnd):
                self._counts["lose"] = max(answer.lost_count, len(answer.lost))
                yield from (f"lost  {shell_words.path_word(path_bytes(lost))}" for lost in answer.lost)
        if plan is None:
            raise session.incomplete_answer(address)
        if self._job.delete and self._root != _NO_TARGET and not self._counts["lose"]:
            yield from self._deletion_lines(plan)
        yield self._summary(plan)

    def _manifest_lines(self, part: Manifest) -> Iterator[str]:
        for entry in part.entries:
            path = checked_path(entry.path)
            step = self._step(path, entry)
            self._counts[step] += 1
            if self._job.delete:
                self._listed.add(path)
            if step in ("create", "replace"):
                yield f"{step}  {shell_words.path_word(path)}"

    def _step(self, path: bytes, entry: ManifestEntry) -> DryRunStep:
        status = None if self._root == _NO_TARGET else directory_tree.status(self._root, path)
        if self._own.is_sealed(path) or (status is not None and self._own.is_kept(path)):
            return "keep"
        if status is None:
            return "create"
        return self._step_in_place(status, path, entry)

    def _step_in_place(self, status: os.stat_result, path: bytes, entry: ManifestEntry) -> DryRunStep:
        overwrite = self._job.overwrite
        if entry.kind == "file" and stat.S_ISREG(status.st_mode):
            if (status.st_size, status.st_mtime_ns) == (entry.size_bytes, time_ns(entry.modified)):
                return "same"
            if overwrite == "never" or (overwrite == "older" and status.st_mtime_ns > time_ns(entry.modified)):
                return "keep"
        elif overwrite == "never":
            return "keep"
        elif entry.kind == "link" and _is_same_link(self._root, path, entry):
            return "same"
        return "replace"

    def _deletion_lines(self, plan: PlannedRestore) -> Iterator[str]:
        source = self._job.source_here(self._agent)
        untouched = excluded_paths.protected_paths(source, plan.target) | self._own.names
        for path in _files_below(self._root, self._job.paths, untouched):
            if path not in self._listed:
                self._counts["delete"] += 1
                yield f"delete  {shell_words.path_word(path)}"

    def _summary(self, plan: PlannedRestore) -> str:
        counts = self._counts
        changes = ", ".join(f"{counts[step]:,} to {step}" for step in ("create", "replace", "delete") if counts[step])
        parts = [changes or "nothing to do"]
        if counts["same"]:
            parts.append(f"{counts['same']:,} are there already")
        if counts["keep"]:
            parts.append(f"{counts['keep']:,} are left as they are")
        if counts["lose"]:
            parts.append(f"{counts['lose']:,} are LOST: the storage's catalog lists them, and the snapshot lacks them")
        return f"{plan.snapshot} into {plan.target}: {'; '.join(parts)}. Nothing was changed."


def _is_same_link(root: int, path: bytes, entry: ManifestEntry) -> bool:
    return entry.target is not None and link_target(root, path) == path_bytes(entry.target)


def _files_below(root: int, paths: tuple[bytes, ...], untouched: frozenset[bytes]) -> Iterator[bytes]:
    """Yield everything at and below the paths but directories, untouched directories and staging directories."""
    with os.scandir(root) as entries:
        names = (os.fsencode(entry.name) for entry in entries)
        kept = untouched | {name for name in names if staging_records.is_staging_name(name)}
    with DirectoryTree(os.dup(root)) as tree:
        for path in paths or (b"",):
            yield from (
                entry.full_path
                for entry in tree.walk(path, skips=kept)
                if not entry.is_directory and entry.full_path not in kept
            )
