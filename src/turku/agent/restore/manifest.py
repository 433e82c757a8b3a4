"""The manifest of a restore: the storage's list of the paths that it restores, asked for without any transfer.

With ``--compare-contents`` it names the files of the target whose content is not the backup's.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import replace

import xxhash

from turku.agent.config.model import AgentConfig
from turku.agent.restore import session
from turku.agent.restore.job import RestoreJob
from turku.agent.restore.plan import planned_restore
from turku.agent.tunnel.trusted_storages import Address
from turku.core.filesystem import directory_tree
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
_CHUNK_BYTES = 1024 * 1024


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
