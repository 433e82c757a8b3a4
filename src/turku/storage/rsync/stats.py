"""What a backup did to a source, in numbers: from rsync's statistics, or by comparing two trees.

rsync's count what it did itself, which is all there is to know, but for two cases: a snapshot that an existing storage
made has no figures to go on from, and files that a failed run had brought over are not sent again.
"""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from turku.core import sampling
from turku.core.filesystem.directory_tree import DirectoryTree
from turku.core.log import one_line
from turku.policy import anomaly
from turku.policy.anomaly import RunStats
from turku.storage.fs.tree import is_file

SAMPLED_FILES = 64
SAMPLED_BYTES = 32 * 1024
"""Both: of one backup, what is looked into, before and after."""
_DRAWN_FILES = 512
"""Out of these: some are directories, or new, or too short."""
_SUFFIX_LIMIT_BYTES = 32
_SUFFIXES_LIMIT = 1000
_NUMBER = re.compile(r"\d+")
_KIND = re.compile(r"(\w+): (\d+)")
_CREATED, _FILES_TRANSFERRED = "Number of created files", "Number of regular files transferred"
_SIZE_TRANSFERRED, _LITERAL = "Total transferred file size", "Literal data"
_TRANSFERRED = (_FILES_TRANSFERRED, _SIZE_TRANSFERRED, _LITERAL, "Matched data")
_REGULAR = re.compile(r"\breg: (\d+)")


@dataclass
class SuffixCounter:
    """Counts created files that have the name of a file of ``base`` with a suffix added, by that suffix."""

    base: Path | None

    def __post_init__(self) -> None:
        self._counts: Counter[bytes] = Counter()

    def add(self, name: bytes) -> None:
        """Take note of a created file; ``name`` is relative to the tree."""
        stem, dot, suffix = name.rpartition(b".")
        if self.base is None or not dot or not 0 < len(suffix) <= _SUFFIX_LIMIT_BYTES or b"/" in suffix:
            return
        if suffix not in self._counts and len(self._counts) >= _SUFFIXES_LIMIT:
            return
        with suppress(OSError, ValueError):
            if is_file(self.base / os.fsdecode(stem)):
                self._counts[suffix] += 1

    def combined_with(self, other: SuffixCounter) -> SuffixCounter:
        """Return what both counted."""
        together = SuffixCounter(self.base)
        together._counts = self._counts + other._counts
        return together

    @property
    def most_common(self) -> tuple[str, int]:
        """The suffix that was added most often, with its dot and fit to be printed, and how often it was."""
        if not self._counts:
            return "", 0
        [(suffix, count)] = self._counts.most_common(1)
        return one_line(b"." + suffix), count


def from_run(statistics: Sequence[str], suffixes: SuffixCounter, before: RunStats | None) -> RunStats | None:
    """The figures of a run by what rsync said; None where that is not understood.

    ``before`` are the figures of the snapshot it was built upon; without them the tree was changed in place.
    """
    # The last of each counts: ours come at the end, and a machine's own lines may look like them.
    told = dict(line.split(":", 1) for line in statistics if ":" in line)
    try:
        files = _files(told["Number of files"])
        created = _files(told[_CREATED])
        deleted = _files(told["Number of deleted files"])
        transferred, size, transferred_size, literal = (
            _number(told[key])
            for key in (
                _FILES_TRANSFERRED,
                "Total file size",
                _SIZE_TRANSFERRED,
                _LITERAL,
            )
        )
    except (KeyError, ValueError):
        return None
    suffix, renamed = suffixes.most_common
    return RunStats(
        files_before=max(files + deleted - created, 0) if before is None else before.files,
        files=files,
        created=created,
        transferred=transferred,
        renamed=renamed,
        suffix=suffix,
        size_bytes_before=None if before is None else before.size_bytes,
        size_bytes=size,
        transferred_bytes=transferred_size,
        literal_bytes=literal,
    )


def summed(statistics: Sequence[str], earlier: Sequence[str]) -> tuple[str, ...]:
    """Return the statistics of a run, with what a run before it of the same backup made and transferred."""
    told = dict(line.split(":", 1) for line in earlier if ":" in line)
    return tuple(_with_earlier(line, told) for line in statistics)


def _with_earlier(line: str, told: Mapping[str, str]) -> str:
    key, _colon, value = line.partition(":")
    before = told.get(key, "0")
    if key in _TRANSFERRED and _NUMBER.search(value):
        return f"{key}:{_NUMBER.sub(str(_number(value) + _number(before)), value, count=1)}"
    if key != _CREATED:
        return line
    kinds = Counter({kind: int(number) for kind, number in _KIND.findall(value)})
    kinds.update({kind: int(number) for kind, number in _KIND.findall(before)})
    listed = ", ".join(f"{kind}: {number}" for kind, number in kinds.items())
    return f"{key}: {kinds.total()} ({listed})" if kinds else line


def from_trees(base: Path | None, tree: Path) -> RunStats:
    """The figures of what lies between two trees; without ``base`` those of a first backup.

    A file of the same size and time, or that is the same one, counts as unchanged.
    """
    suffixes = SuffixCounter(base)
    files = created = transferred = size = transferred_size = 0
    before: list[int] = []
    with ExitStack() as stack:
        new = stack.enter_context(DirectoryTree(tree))
        old = None if base is None else stack.enter_context(DirectoryTree(base))
        for each in new.walk():
            if not each.is_file:
                continue
            status = each.status
            files += 1
            size += status.st_size
            former = None
            if old is not None:
                with suppress(OSError):
                    former = old.status(each.full_path)
            if former is not None and stat.S_ISREG(former.st_mode):
                # A snapshot of btrfs has its files' inode numbers, on a device of its own.
                is_same = (former.st_dev, former.st_ino) == (status.st_dev, status.st_ino)
                if is_same or (former.st_size, former.st_mtime_ns) == (status.st_size, status.st_mtime_ns):
                    continue
            else:
                created += 1
                suffixes.add(each.full_path)
            transferred += 1
            transferred_size += status.st_size
        if old is not None:
            before = [each.status.st_size for each in old.walk() if each.is_file]
    suffix, renamed = suffixes.most_common
    return RunStats(
        files_before=len(before),
        files=files,
        created=created,
        transferred=transferred,
        renamed=renamed,
        suffix=suffix,
        size_bytes_before=sum(before),
        size_bytes=size,
        transferred_bytes=transferred_size,
        # Which of it is new is not known: taken to be all.
        literal_bytes=transferred_size,
    )


def with_content_sample(found: RunStats, changed: Iterable[bytes], base: Path, tree: Path) -> RunStats:
    """The figures, with what became of the content of some of the changed files, drawn by lot.

    A file counts whose name, or its name without a suffix that was added, the snapshot before had. ``changed`` are
    paths relative to the trees. At most ``SAMPLED_FILES`` are read, and of each its first ``SAMPLED_BYTES``.
    """
    drawn = sampling.draw(changed, _DRAWN_FILES)
    sampled = became_random = 0
    if drawn:
        with suppress(FileNotFoundError), DirectoryTree(base) as before, DirectoryTree(tree) as after:
            for path in drawn:
                pair = _beginnings(before, after, path)
                if pair is not None:
                    sampled += 1
                    became_random += not anomaly.looks_random(pair[0]) and anomaly.looks_random(pair[1])
                if sampled == SAMPLED_FILES:
                    break
    return replace(found, sampled=sampled, became_random=became_random)


def _beginnings(before: DirectoryTree, after: DirectoryTree, path: bytes) -> tuple[bytes, bytes] | None:
    """How a file begins, before and after; None where there was none of its name, or it has too little content."""
    stem = path.rpartition(b".")[0]
    for former in (path, stem):
        with suppress(OSError):
            old = _beginning(before, former)
            new = _beginning(after, path)
            if min(len(old), len(new)) >= anomaly.RANDOM_MINIMUM_BYTES:
                return old, new
            return None
    return None


def _beginning(tree: DirectoryTree, path: bytes) -> bytes:
    descriptor = tree.open_file(path)
    try:
        return os.pread(descriptor, SAMPLED_BYTES, 0)
    finally:
        os.close(descriptor)


def _files(text: str) -> int:
    """Regular files of a count such as `` 12 (reg: 10, dir: 2)``."""
    if match := _REGULAR.search(text):
        return int(match[1])
    if "(" not in text and _number(text) > 0:
        raise ValueError("an rsync that does not tell kinds of files apart")
    return 0


def _number(text: str) -> int:
    match = _NUMBER.search(text)
    if match is None:
        raise ValueError("no number")
    return int(match[0])
