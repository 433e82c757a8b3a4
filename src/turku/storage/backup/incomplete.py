"""The assessment of files that a run could not transfer: notes, warnings, and findings if there are many."""

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

_LISTED_ENTRIES = 20
"""The number of entries in a summary."""


def assess(
    errors: FileErrors, base: Path | None, earlier: Incompleteness, base_moment: str, further: tuple[str, ...] = ()
) -> Incompleteness:
    """Return the entries that a snapshot lacks, or has as they were in the tree ``base``.

    ``earlier`` is the base's own incompleteness, ``base_moment`` the time at which it was made, and ``further`` are
    warnings of other kinds. Raises OSError.
    """
    entries: list[LostEntry] = []
    missing = stale = 0
    with ExitStack() as stack:
        tree = None if base is None else stack.enter_context(DirectoryTree(base))
        for path, message in sorted(errors.entries.items()):
            files = 0 if tree is None else _count_files(tree, path)
            last_good = (earlier.last_good(path) or base_moment) if files else ""
            missing += not files
            stale += files
            entries.append(LostEntry(os.fsdecode(path), _reason(message), files or 1, last_good))
    missing += errors.unnamed_count
    warnings = (*further, *errors.warnings)
    return Incompleteness(
        missing_files=missing,
        stale_files=stale,
        entries=bounded(entries),
        warning_count=len(further) + errors.warning_count,
        warnings=warnings[:WARNINGS_LIMIT],
    )


def _count_files(tree: DirectoryTree, path: bytes) -> int:
    """Return the number of files below the path, or 1 for an entry that is no directory."""
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
    """Return the warnings about a snapshot, a sentence each, the most important one first."""
    if not incomplete.files:
        return incomplete.warnings
    first = f"INCOMPLETE: {incomplete.files} file{'' if incomplete.files == 1 else 's'} could not be read"
    if incomplete.stale_files:
        first += f", {incomplete.stale_files} of them are in the snapshot as they were when they could last be read"
    listed = [_describe(each) for each in incomplete.entries[:_LISTED_ENTRIES]]
    more = incomplete.files - sum(each.files for each in incomplete.entries[:_LISTED_ENTRIES])
    return (first, *listed, *([f"and {more} more files"] if more > 0 else []), *incomplete.warnings)


def _describe(entry: LostEntry) -> str:
    path = one_line(entry.raw_path)
    if not entry.is_stale:
        return f"{path}: {entry.reason}; it is not in the snapshot"
    subject = f"its {entry.files} files are" if entry.files > 1 else "it is"
    return f"{path}: {entry.reason}; {subject} as of {entry.last_good}"


def findings(
    new: Incompleteness, earlier: Incompleteness, files_before: int, thresholds: AnomalyThresholds
) -> tuple[str, ...]:
    """Return the reasons for quarantine, a sentence each: many files were readable before and are not now.

    ``earlier`` belongs to the snapshot before, which had ``files_before`` files.
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
