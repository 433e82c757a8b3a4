"""What a restore would do, found out without any of it: the storage lists, and the target is looked at here."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from turku.agent import history_session
from turku.agent.configuration import Agent
from turku.agent.recovery import Order, planned
from turku.core.log import one_line
from turku.errors import CommandFailed, MalformedMessage, PolicyError
from turku.policy import names
from turku.protocol.restore_messages import (
    PARTIAL_DIRECTORY,
    TEMPORARY_DIRECTORY,
    HistoryRequest,
    Manifest,
    ManifestEntry,
    RecoverEnd,
    RecoverPlan,
    path_bytes,
)

_TIMEOUT_SECONDS = 3600.0
_OURS = (TEMPORARY_DIRECTORY.encode(), PARTIAL_DIRECTORY.encode())

Step = Literal["create", "replace", "keep", "same", "delete"]


def lines(agent: Agent, order: Order) -> Iterator[str]:
    """A line for each path that would be written or deleted, and the sum. Raises as ``recovery.recover`` does."""
    address = history_session.trusted(agent, order.storage)
    request = HistoryRequest("recover", recover=order.message(agent, list_only=True))
    counts: Counter[Step] = Counter()
    kept: set[bytes] = set()
    directory: Path | None = None
    snapshot, is_whole = "", False
    for answer in history_session.ask(agent, address, request, timeout_seconds=_TIMEOUT_SECONDS):
        if isinstance(answer, RecoverPlan):
            plan = planned(order, answer, address.name)
            snapshot, directory = plan.snapshot, plan.target
        elif isinstance(answer, Manifest) and directory is not None:
            for entry in answer.entries:
                path = _checked(entry)
                step = _step(directory, path, entry, order.overwrite)
                counts[step] += 1
                if order.delete:
                    kept.add(path)
                if step in ("create", "replace"):
                    yield f"{step}  {one_line(path)}"
        elif isinstance(answer, RecoverEnd):
            is_whole = True
    if not is_whole or directory is None:
        raise CommandFailed(f"storage {address.name} ended the session before its answer was whole")
    if order.delete:
        for path in _others(directory, order.paths, kept):
            counts["delete"] += 1
            yield f"delete  {one_line(path)}"
    told = ", ".join(f"{counts[step]:,} to {step}" for step in ("create", "replace", "delete") if counts[step])
    alike = f"{counts['same']:,} are there already" if counts["same"] else ""
    left = f"{counts['keep']:,} are left as they are" if counts["keep"] else ""
    said = "; ".join(part for part in (told or "nothing to do", alike, left) if part)
    yield f"{snapshot} into {directory}: {said}. Nothing was changed."


def _checked(entry: ManifestEntry) -> bytes:
    try:
        return names.path_inside(path_bytes(entry.path))
    except PolicyError as error:
        raise MalformedMessage(f"the storage's manifest: {error.message}") from error


def _step(directory: Path, path: bytes, entry: ManifestEntry, overwrite: str) -> Step:
    here = os.fsencode(directory) + b"/" + path
    try:
        status = os.lstat(here)
    except OSError:
        return "create"
    if entry.kind == "file" and stat.S_ISREG(status.st_mode):
        if (status.st_size, status.st_mtime_ns) == (entry.size_bytes, entry.mtime_ns):
            return "same"
        if overwrite == "never" or (overwrite == "older" and status.st_mtime_ns > entry.mtime_ns):
            return "keep"
    elif overwrite == "never":
        return "keep"
    elif entry.kind == "link" and _leads_to(here, entry):
        return "same"
    return "replace"


def _leads_to(path: bytes, entry: ManifestEntry) -> bool:
    try:
        return entry.target is not None and os.fsencode(Path(os.fsdecode(path)).readlink()) == path_bytes(entry.target)
    except OSError:
        return False


def _others(directory: Path, paths: tuple[bytes, ...], kept: set[bytes]) -> Iterator[bytes]:
    """What is below the restored paths, and is no directory, and is not in the snapshot."""
    waiting = list(paths or (b"",))
    while waiting:
        inside = waiting.pop()
        try:
            entries = os.scandir(os.fsencode(directory) + b"/" + inside)
        except OSError:
            continue
        with entries:
            for entry in entries:
                path = inside + b"/" + entry.name if inside else entry.name
                if entry.name in _OURS:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(path)
                elif path not in kept:
                    yield path
