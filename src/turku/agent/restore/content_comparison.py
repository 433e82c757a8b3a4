"""``--compare-contents``: find files of the target that have the same size and time as the backup's, but other content.

The storage lists its files with the checksums of the backup, and the target's files are read here. So the storage
learns nothing about this machine, and its rsync needs to read nothing.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from contextlib import suppress
from dataclasses import replace

import xxhash

from turku.agent.config.model import AgentConfig
from turku.agent.restore import manifest
from turku.agent.restore.job import RestoreJob
from turku.agent.restore.plan import planned_restore
from turku.agent.tunnel.storage_address import Address
from turku.core.filesystem import directory_tree
from turku.protocol.restore_messages import Manifest, ManifestEntry, RestorePlan, SnapshotChoice

_TIMEOUT_SECONDS = 24 * 3600.0
_CHUNK_BYTES = 1024 * 1024


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
    for answer in manifest.request(agent, job, address, timeout_seconds=_TIMEOUT_SECONDS):
        if isinstance(answer, RestorePlan):
            snapshot = planned_restore(agent.state, job, answer, address.name).snapshot
            if not job.snapshot.is_unfinished:
                fixed = replace(job, snapshot=SnapshotChoice(name=snapshot))
        elif isinstance(answer, Manifest):
            for entry in answer.entries:
                path = manifest.checked_path(entry.path)
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
        if (found.st_size, found.st_mtime_ns) != (entry.size_bytes, entry.modified_ns):
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
