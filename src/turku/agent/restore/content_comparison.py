"""``--compare-contents``: which files are there with the same size and time, and with other content?

The storage lists what it has with the checksums of the backup, and the files are read here. So nothing of this machine
is shown to the storage, and its rsync needs to read nothing.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import xxhash

from turku.core.filesystem import directory_tree
from turku.errors import CommandFailed, InvalidValue, MalformedMessage
from turku.policy import names
from turku.protocol.restore_messages import (
    HistoryRequest,
    Manifest,
    ManifestEntry,
    RestoreEnd,
    RestorePlan,
    SnapshotChoice,
    path_bytes,
)

if TYPE_CHECKING:
    from turku.agent.config.model import AgentConfig
    from turku.agent.restore.run import RestoreJob
    from turku.agent.ssh_tunnel import Address

_TIMEOUT_SECONDS = 24 * 3600.0
_CHUNK_BYTES = 1024 * 1024


def find_differing(agent: AgentConfig, job: RestoreJob, address: Address) -> tuple[RestoreJob, Collection[bytes]]:
    """Return the job, of one certain snapshot, with the paths whose files have to be sent though they look the same.

    Without ``compare_contents`` there are none. Raises as ``recovery.recover`` does.
    """
    if not job.compare_contents or job.target is None or job.overwrite == "never":
        return job, ()
    try:
        root = os.open(job.target, directory_tree.DIRECTORY_FLAGS)
    except OSError:
        return job, ()
    try:
        return _compared(agent, job, address, root)
    finally:
        os.close(root)


def _compared(agent: AgentConfig, job: RestoreJob, address: Address, root: int) -> tuple[RestoreJob, Collection[bytes]]:
    from turku.agent.restore import run as restore_run
    from turku.agent.restore import session

    request = HistoryRequest("restore_files", restore_files=job.message(agent, list_only=True))
    # As many as the user has files at most: nothing else is noted, whatever the storage lists.
    differing: set[bytes] = set()
    is_whole = False
    for answer in session.ask(agent, address, request, timeout_seconds=_TIMEOUT_SECONDS):
        if isinstance(answer, RestorePlan):
            snapshot = restore_run.planned_restore(agent, job, answer, address.name).snapshot
            if not job.snapshot.is_unfinished:
                job = replace(job, snapshot=SnapshotChoice(name=snapshot))
        elif isinstance(answer, Manifest):
            differing.update(
                path for entry in answer.entries if (path := _path(entry)) and not _is_the_same(root, path, entry)
            )
        elif isinstance(answer, RestoreEnd):
            is_whole = True
    if not is_whole:
        raise CommandFailed(f"storage {address.name} ended the session before its answer was whole")
    return job, differing


def _path(entry: ManifestEntry) -> bytes:
    try:
        return names.path_inside(path_bytes(entry.path))
    except InvalidValue as error:
        raise MalformedMessage(f"the storage's manifest: {error.message}") from error


def _is_the_same(root: int, path: bytes, entry: ManifestEntry) -> bool:
    """Whether rsync may judge by size and time: that tells it enough, or the content is the same."""
    if entry.kind != "file":
        return True
    with suppress(OSError):
        found = directory_tree.status(root, path)
        if found is None or not stat.S_ISREG(found.st_mode):
            return True
        if (found.st_size, found.st_mtime_ns) != (entry.size_bytes, entry.modified_ns):
            return True
        descriptor = directory_tree.open_file(root, path)
        try:
            hasher = xxhash.xxh128()
            while chunk := os.read(descriptor, _CHUNK_BYTES):
                hasher.update(chunk)
        finally:
            os.close(descriptor)
        return hasher.digest() == entry.checksum
    return False
