"""Detection of backups that look like an attack or a loss of data (threats M10).

A source whose files were deleted, rewritten or renamed in numbers is still backed up, but its snapshot is quarantined
until a person reviews it. One strong finding is enough, and so are two that are half as strong. What earlier good
backups of the source did is its baseline: a source that is rewritten every day is not quarantined for it. Some findings
never count alone, because they have everyday reasons: much of the size is gone or new, or files now look encrypted.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from turku.core.configuration.declaration import Count, Key, Section

Share = Annotated[float, Meta(gt=0, le=1)]
BASELINE_RUNS = 10
"""Number of the last good backups that make up the baseline."""
HALF = 0.5
"""A finding of this share of its threshold counts together with another one."""
ABOVE_BASELINE = 1.25
"""A share must be this many times the baseline's to be a finding."""
TOUCHED_BYTES_PER_FILE = 64
"""With less new content than this for each file sent again, only the times of the files changed."""
SMALLEST_SAMPLE = 8
"""A sample of fewer files says nothing."""
RANDOM_MINIMUM_BYTES = 512
"""Shorter content cannot be told from random content."""
_RANDOM_CHI_SQUARE = 400
"""256 equally frequent bytes give 255, plus or minus 23. Text and programs give thousands and more."""


@dataclass(frozen=True)
class RunStats:
    """The statistics of one backup, compared with its base snapshot. Files are regular files."""

    files_before: int
    files: int
    created: int = 0
    """Files whose names are new."""
    transferred: int = 0
    """Files that were sent: new ones, and those whose content or time changed."""
    renamed: int = 0
    """Created files that have the suffix that most created files have."""
    suffix: str = ""
    """That suffix, with its dot."""
    size_bytes_before: int | None = None
    size_bytes: int = 0
    transferred_bytes: int = 0
    """Total size of the files that were sent."""
    literal_bytes: int = 0
    """The part of it that the storage did not have yet."""
    sampled: int = 0
    """Replaced files whose content was examined. The new file has the old name, or the old name with a suffix."""
    became_random: int = 0
    """Sampled files that look encrypted now and did not before."""

    @property
    def deleted(self) -> int:
        """Files that no longer exist."""
        return max(self.files_before + self.created - self.files, 0)

    @property
    def rewritten(self) -> int:
        """Files whose content changed."""
        changed = max(self.transferred - self.created, 0)
        is_touched_only = self.literal_bytes < min(self.transferred_bytes / 2, changed * TOUCHED_BYTES_PER_FILE)
        return 0 if is_touched_only else changed

    def share(self, count: int) -> float:
        """Return a number of files as a share of the files before, at most 1."""
        return min(count / self.files_before, 1.0) if self.files_before else 0.0

    @property
    def shrunk_share(self) -> float:
        """Lost size as a share of the size before."""
        if not self.size_bytes_before:
            return 0.0
        return max(1 - self.size_bytes / self.size_bytes_before, 0.0)

    @property
    def replaced_share(self) -> float:
        """Size replaced by new content as a share of the size before, at most 1. Growth does not count."""
        if not self.size_bytes_before:
            return 0.0
        growth = max(self.size_bytes - self.size_bytes_before, 0)
        return min(max(self.literal_bytes - growth, 0) / self.size_bytes_before, 1.0)

    @property
    def random_share(self) -> float:
        """Share of the sampled files that became random, as encrypted files are."""
        return self.became_random / self.sampled if self.sampled >= SMALLEST_SAMPLE else 0.0


class AnomalyThresholds(Section, frozen=True):
    """The shares from which one finding alone quarantines a snapshot."""

    enabled: Annotated[bool, Key("Looks for anomalies in backups.")] = True
    minimum_files: Annotated[Count, Key("A source with fewer files is quarantined only when it becomes empty.")] = 20
    deleted_share: Annotated[Share, Key("Files that are gone.")] = 0.5
    rewritten_share: Annotated[Share, Key("Files of new content.")] = 0.5
    renamed_share: Annotated[Share, Key("Files replaced by ones of the same name with one suffix added.")] = 0.25
    shrunk_share: Annotated[Share, Key("Lost size. It never counts alone, because one large file may be deleted.")] = (
        0.8
    )
    replaced_share: Annotated[
        Share,
        Key("Size of new content. It never counts alone, nor at half of it, because it comes with rewritten files."),
    ] = 0.8
    unreadable_share: Annotated[
        Share,
        Key(
            "Files that could be read before and cannot be read now, as a share of all. It counts alone, as does a "
            "directory of which nothing can be read any more."
        ),
    ] = 0.1
    random_share: Annotated[
        Share,
        Key(
            "Of up to 64 changed files, drawn by lot, those that look encrypted now. It never counts alone, because "
            "archives and pictures look so too."
        ),
    ] = 0.5


DEFAULT_THRESHOLDS = AnomalyThresholds()


@dataclass(frozen=True)
class _Finding:
    text: str
    strength: float
    """1 is enough."""
    counts_alone: bool = True
    counts_from: float = HALF
    """Strength from which it counts together with another one."""


def findings(
    stats: RunStats, baseline: Sequence[RunStats] = (), *, thresholds: AnomalyThresholds = DEFAULT_THRESHOLDS
) -> tuple[str, ...]:
    """Return the reasons to quarantine a backup, one sentence each, or nothing.

    ``baseline`` holds the statistics of earlier good backups. A first backup has no findings.
    """
    if not thresholds.enabled or stats.files_before == 0:
        return ()
    if stats.files == 0:
        return (f"the source is empty, it had {stats.files_before} files",)
    if stats.files_before < thresholds.minimum_files:
        return ()
    found = [
        _of_files("deleted", lambda each: each.deleted, thresholds.deleted_share, stats, baseline),
        _of_files("rewritten", lambda each: each.rewritten, thresholds.rewritten_share, stats, baseline),
        _of_files(
            f"replaced by names that end with {stats.suffix}",
            # Files that came beside the old ones replace nothing.
            lambda each: min(each.renamed, each.deleted),
            thresholds.renamed_share,
            stats,
            baseline,
        ),
        _Finding(
            f"{stats.shrunk_share:.0%} of the size is gone ({stats.size_bytes_before} to {stats.size_bytes} bytes)",
            stats.shrunk_share / thresholds.shrunk_share,
            counts_alone=False,
        ),
        _Finding(
            f"{stats.replaced_share:.0%} of the size is new content",
            _strength(lambda each: each.replaced_share, thresholds.replaced_share, stats, baseline),
            counts_alone=False,
            counts_from=1.0,
        ),
        _Finding(
            f"{stats.became_random} of {stats.sampled} sampled files that changed look encrypted now",
            _strength(lambda each: each.random_share, thresholds.random_share, stats, baseline),
            counts_alone=False,
        ),
    ]
    counted = [finding for finding in found if finding.strength >= finding.counts_from]
    if len(counted) > 1 or any(finding.counts_alone and finding.strength >= 1 for finding in counted):
        return tuple(finding.text for finding in counted)
    return ()


def looks_random(content: bytes) -> bool:
    """Return True when all bytes are about equally frequent, as in encrypted and in well compressed content."""
    if len(content) < RANDOM_MINIMUM_BYTES:
        return False
    expected = len(content) / 256
    counts = Counter(content)
    return sum((counts.get(byte, 0) - expected) ** 2 for byte in range(256)) / expected < _RANDOM_CHI_SQUARE


def _of_files(
    happened: str, count: Callable[[RunStats], int], threshold: float, stats: RunStats, baseline: Sequence[RunStats]
) -> _Finding:
    number = count(stats)
    text = f"{stats.share(number):.0%} of the files were {happened} ({number} of {stats.files_before})"
    return _Finding(text, _strength(lambda each: each.share(count(each)), threshold, stats, baseline))


def _strength(
    share_of: Callable[[RunStats], float], threshold: float, stats: RunStats, baseline: Sequence[RunStats]
) -> float:
    """Return the share in units of its threshold, or 0 where it is about what the baseline has."""
    share = share_of(stats)
    baseline_share = max((share_of(each) for each in baseline), default=0.0)
    # A share is at most 1, so a source that usually changes nearly all of its files never exceeds its baseline.
    return 0.0 if share <= baseline_share * ABOVE_BASELINE else share / threshold
