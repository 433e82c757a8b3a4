"""What a restore would do, found out without any of it: the storage lists, and the target is looked at here."""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal

from turku.agent.capture import excluded_paths
from turku.agent.config.model import AgentConfig
from turku.agent.restore import session, staging_directory
from turku.agent.restore.run import RestoreJob, planned_restore
from turku.core.cli import shell_words
from turku.core.filesystem import directory_tree
from turku.core.spool import NameFilter, Stack
from turku.errors import CommandFailed, InvalidValue, MalformedMessage
from turku.policy import names
from turku.protocol.restore_messages import (
    HistoryRequest,
    Manifest,
    ManifestEntry,
    RestoreEnd,
    RestorePlan,
    path_bytes,
)

_TIMEOUT_SECONDS = 3600.0
_OURS = re.compile(re.escape(staging_directory.PREFIX.encode()) + rb"[0-9a-f]{32}")
_NOWHERE = -1

DryRunStep = Literal["create", "replace", "keep", "same", "delete", "lose"]


def lines(agent: AgentConfig, job: RestoreJob) -> Iterator[str]:
    """A line for each path that would be written or deleted, and the sum. Raises as ``recovery.recover`` does."""
    address = session.trusted_address(agent, job.storage)
    request = HistoryRequest("restore_files", restore_files=job.message(agent, list_only=True))
    counts: Counter[DryRunStep] = Counter()
    # However much a storage lists, it takes no more memory.
    kept = NameFilter()
    directory: Path | None = None
    root = _NOWHERE
    snapshot, is_whole = "", False
    try:
        for answer in session.ask(agent, address, request, timeout_seconds=_TIMEOUT_SECONDS):
            if isinstance(answer, RestorePlan) and directory is None:
                plan = planned_restore(agent, job, answer, address.name)
                snapshot, directory = plan.snapshot, plan.target
                yield from (f"note: {remark}" for remark in plan.remarks)
                with suppress(OSError):
                    root = os.open(directory, directory_tree.DIRECTORY_FLAGS)
            elif isinstance(answer, Manifest) and directory is not None:
                for entry in answer.entries:
                    path = _checked(entry)
                    step = _step(root, path, entry, job.overwrite)
                    counts[step] += 1
                    if job.delete:
                        kept.add(path)
                    if step in ("create", "replace"):
                        yield f"{step}  {shell_words.path_word(path)}"
            elif isinstance(answer, RestoreEnd):
                is_whole = True
                counts["lose"] = max(answer.lost_count, len(answer.lost))
                for lost in answer.lost:
                    yield f"lost  {shell_words.path_word(path_bytes(lost))}"
        if not is_whole or directory is None:
            raise CommandFailed(f"storage {address.name} ended the session before its answer was whole")
        if job.delete and root != _NOWHERE and not counts["lose"]:
            untouched = excluded_paths.protected_paths(agent, job.source_here(agent), directory)
            for path in _extra_paths(root, job.paths, kept, untouched):
                counts["delete"] += 1
                yield f"delete  {shell_words.path_word(path)}"
    finally:
        if root != _NOWHERE:
            os.close(root)
    told = ", ".join(f"{counts[step]:,} to {step}" for step in ("create", "replace", "delete") if counts[step])
    alike = f"{counts['same']:,} are there already" if counts["same"] else ""
    left = f"{counts['keep']:,} are left as they are" if counts["keep"] else ""
    lost = f"{counts['lose']:,} are LOST: the storage's catalog lists them, and the snapshot lacks them"
    said = "; ".join(part for part in (told or "nothing to do", alike, left, lost if counts["lose"] else "") if part)
    yield f"{snapshot} into {directory}: {said}. Nothing was changed."


def _checked(entry: ManifestEntry) -> bytes:
    try:
        return names.path_inside(path_bytes(entry.path))
    except InvalidValue as error:
        raise MalformedMessage(f"the storage's manifest: {error.message}") from error


def _step(root: int, path: bytes, entry: ManifestEntry, overwrite: str) -> DryRunStep:
    status = None if root == _NOWHERE else directory_tree.status(root, path)
    if status is None:
        return "create"
    if entry.kind == "file" and stat.S_ISREG(status.st_mode):
        if (status.st_size, status.st_mtime_ns) == (entry.size_bytes, entry.modified_ns):
            return "same"
        if overwrite == "never" or (overwrite == "older" and status.st_mtime_ns > entry.modified_ns):
            return "keep"
    elif overwrite == "never":
        return "keep"
    elif entry.kind == "link" and _leads_to(root, path, entry):
        return "same"
    return "replace"


def _leads_to(root: int, path: bytes, entry: ManifestEntry) -> bool:
    above, _slash, name = path.rpartition(b"/")
    try:
        directory = directory_tree.open_directory(root, above)
    except OSError:
        return False
    try:
        return entry.target is not None and os.readlink(name, dir_fd=directory) == path_bytes(entry.target)
    except OSError:
        return False
    finally:
        os.close(directory)


def _extra_paths(root: int, paths: tuple[bytes, ...], kept: NameFilter, untouched: frozenset[bytes]) -> Iterator[bytes]:
    """What is below the restored paths, and is no directory, and is not in the snapshot nor in an untouched one."""
    with Stack() as waiting:
        for path in paths or (b"",):
            waiting.push(path)
        while (inside := waiting.pop()) is not None:
            try:
                directory = directory_tree.open_directory(root, inside)
            except OSError:
                continue
            try:
                with os.scandir(directory) as entries:
                    for entry in entries:
                        name = os.fsencode(entry.name)
                        path = inside + b"/" + name if inside else name
                        if not inside and _OURS.fullmatch(name):
                            continue
                        if path in untouched:
                            continue
                        if entry.is_dir(follow_symlinks=False):
                            waiting.push(path)
                        elif path not in kept:
                            yield path
            finally:
                os.close(directory)
