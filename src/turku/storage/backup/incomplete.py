"""What a run could not bring: noted with the snapshot, told to people, and judged where it is much."""

from __future__ import annotations

import os
import stat
from contextlib import ExitStack
from pathlib import Path

from turku.core.filesystem.directory_tree import DirectoryTree
from turku.core.log import one_line
from turku.policy.anomaly import AnomalyThresholds
from turku.storage.disk.incompleteness import WARNINGS_LIMIT, Incompleteness, LostEntry, bounded
from turku.storage.rsync.file_errors import FileErrors
from turku.storage.rsync.messages import Message

_SENTENCES = 20
"""Entries that a summary names."""


def assess(
    mishaps: FileErrors, base: Path | None, earlier: Incompleteness, base_moment: str, further: tuple[str, ...] = ()
) -> Incompleteness:
    """Return what a snapshot lacks, or has as it was in the tree ``base``, about which ``earlier`` is noted.

    ``base_moment`` is when that snapshot was made, ``further`` are warnings of another kind. Raises OSError.
    """
    entries: list[LostEntry] = []
    missing = stale = 0
    with ExitStack() as stack:
        tree = None if base is None else stack.enter_context(DirectoryTree(base))
        for path, message in sorted(mishaps.entries.items()):
            files = 0 if tree is None else _files(tree, path)
            last_good = (earlier.last_good(path) or base_moment) if files else ""
            missing += not files
            stale += files
            entries.append(LostEntry(os.fsdecode(path), _reason(message), files or 1, last_good))
    missing += mishaps.unnamed_count
    warnings = (*further, *mishaps.warnings)
    return Incompleteness(
        missing_files=missing,
        stale_files=stale,
        entries=bounded(entries),
        warning_count=len(further) + mishaps.warning_count,
        warnings=warnings[:WARNINGS_LIMIT],
    )


def _files(tree: DirectoryTree, path: bytes) -> int:
    """Return how many files there are at the path: one that is none itself, or those in a directory."""
    try:
        status = tree.status(path)
    except OSError:
        return 0
    if not stat.S_ISDIR(status.st_mode):
        return 1
    return sum(not each.is_directory for each in tree.walk(path))


def _reason(message: Message) -> str:
    return f"{message.kind}: {message.reason}" if message.reason else str(message.kind)


def warnings(incomplete: Incompleteness) -> tuple[str, ...]:
    """Return what is to be told of it, a sentence each, the one that counts first; none where nothing is missing."""
    if not incomplete.files:
        return incomplete.warnings
    first = f"INCOMPLETE: {incomplete.files} file{'' if incomplete.files == 1 else 's'} could not be read"
    if incomplete.stale_files:
        first += f", {incomplete.stale_files} of them are in the snapshot as they were when they could last be read"
    named = [_shown(each) for each in incomplete.entries[:_SENTENCES]]
    more = incomplete.files - sum(each.files for each in incomplete.entries[:_SENTENCES])
    return (first, *named, *([f"and {more} more files"] if more > 0 else []), *incomplete.warnings)


def _shown(entry: LostEntry) -> str:
    path = one_line(entry.raw_path)
    if not entry.is_stale:
        return f"{path}: {entry.reason}; it is not in the snapshot"
    what = f"its {entry.files} files are" if entry.files > 1 else "it is"
    return f"{path}: {entry.reason}; {what} as of {entry.last_good}"


def findings(
    new: Incompleteness, earlier: Incompleteness, files_before: int, thresholds: AnomalyThresholds
) -> tuple[str, ...]:
    """Return what makes the snapshot suspicious, a sentence each: much that could be read before, and cannot now.

    ``earlier`` is of the snapshot before, which had so many files.
    """
    if not thresholds.enabled or not files_before:
        return ()
    found = []
    lost = new.stale_files - earlier.stale_files
    if files_before >= thresholds.minimum_files and lost > files_before * thresholds.unreadable_share:
        found.append(f"{lost} of {files_before} files cannot be read any more")
    known = {each.path for each in earlier.entries}
    for each in new.entries:
        if each.is_stale and each.files > 1 and each.path not in known:
            found.append(f"nothing in {one_line(each.raw_path)[:300]} can be read any more, it had {each.files} files")
            break
    return tuple(found)
