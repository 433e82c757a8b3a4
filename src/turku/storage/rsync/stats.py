"""The statistics of a backup, from rsync's own or by comparing two trees.

rsync's statistics are enough except in two cases: the base was made by an existing storage and has none, or files of
a failed run are not sent again.
"""

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
"""The size of the sample of each file's content."""
_DRAWN_FILES = 512
"""The sample is drawn from this many changes, because some are directories, or new, or too short."""
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
    """Counter of new files that have the name of a file of ``base`` with a suffix added, by that suffix."""

    base: Path | None

    def __post_init__(self) -> None:
        self._counts: Counter[bytes] = Counter()

    def add(self, name: bytes) -> None:
        """Count a new file. ``name`` is relative to the tree."""
        stem, dot, suffix = name.rpartition(b".")
        if self.base is None or not dot or not 0 < len(suffix) <= _SUFFIX_LIMIT_BYTES or b"/" in suffix:
            return
        if suffix not in self._counts and len(self._counts) >= _SUFFIXES_LIMIT:
            return
        with suppress(OSError, ValueError):
            if is_file(self.base / os.fsdecode(stem)):
                self._counts[suffix] += 1

    def combined_with(self, other: "SuffixCounter") -> "SuffixCounter":
        """Return the sum of both counters."""
        together = SuffixCounter(self.base)
        together._counts = self._counts + other._counts
        return together

    @property
    def most_common(self) -> tuple[str, int]:
        """The most common suffix, with its dot and printable, and its count."""
        if not self._counts:
            return "", 0
        [(suffix, count)] = self._counts.most_common(1)
        return one_line(b"." + suffix), count


def from_run(statistics: Sequence[str], suffixes: SuffixCounter, before: RunStats | None) -> RunStats | None:
    """Return the statistics of a run from rsync's own. None if they are not understood.

    ``before`` are those of the base. Without them the tree was changed in place.
    """
    # The last line of each key counts: ours come at the end, and a machine's own lines may look like them.
    values = dict(line.split(":", 1) for line in statistics if ":" in line)
    try:
        files = _files(values["Number of files"])
        created = _files(values[_CREATED])
        deleted = _files(values["Number of deleted files"])
        transferred, size, transferred_size, literal = (
            _number(values[key]) for key in (_FILES_TRANSFERRED, "Total file size", _SIZE_TRANSFERRED, _LITERAL)
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


def literal_bytes(statistics: Sequence[str]) -> int:
    """Return the bytes of data that rsync reports as received. 0 if it does not say so, or is not understood."""
    said = [line.partition(":")[2] for line in statistics if line.startswith(f"{_LITERAL}:")]
    try:
        return _number(said[-1]) if said else 0
    except ValueError:
        return 0


def summed(statistics: Sequence[str], earlier: Sequence[str]) -> tuple[str, ...]:
    """Return the statistics of a run with the counts of an earlier run of the same backup added."""
    values = dict(line.split(":", 1) for line in earlier if ":" in line)
    return tuple(_with_earlier(line, values) for line in statistics)


def _with_earlier(line: str, earlier: Mapping[str, str]) -> str:
    key, _colon, value = line.partition(":")
    before = earlier.get(key, "0")
    if key in _TRANSFERRED and _NUMBER.search(value):
        return f"{key}:{_NUMBER.sub(str(_number(value) + _number(before)), value, count=1)}"
    if key != _CREATED:
        return line
    kinds = Counter({kind: int(number) for kind, number in _KIND.findall(value)})
    kinds.update({kind: int(number) for kind, number in _KIND.findall(before)})
    listed = ", ".join(f"{kind}: {number}" for kind, number in kinds.items())
    return f"{key}: {kinds.total()} ({listed})" if kinds else line


def from_trees(base: Path | None, tree: Path) -> RunStats:
    """Return the statistics of the differences between two trees, without ``base`` those of a first backup.

    A file of the same size and time, or with the same inode, counts as unchanged.
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
                # A btrfs snapshot keeps inode numbers, on a device of its own.
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
        # The share of new content is unknown, so all of it counts.
        literal_bytes=transferred_size,
    )


def with_content_sample(found: RunStats, changed: Iterable[bytes], base: Path, tree: Path) -> RunStats:
    """Return the statistics with a random sample of changed files, compared before and after.

    A file counts if the base has its name, or its name without an added suffix. ``changed`` are paths relative to the
    trees. At most ``SAMPLED_FILES`` are read, and the first ``SAMPLED_BYTES`` of each.
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
    """Return the beginning of a file, before and after. None for a new file, or one with too little content."""
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
    """Return the number of regular files in a count such as `` 12 (reg: 10, dir: 2)``."""
    if match := _REGULAR.search(text):
        return int(match[1])
    if "(" not in text and _number(text) > 0:
        raise ValueError("rsync does not count kinds of files separately")
    return 0


def _number(text: str) -> int:
    match = _NUMBER.search(text)
    if match is None:
        raise ValueError("no number")
    return int(match[0])
