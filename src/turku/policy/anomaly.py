"""Whether a backup looks as if its machine had been taken over, or its data destroyed (threats M10).

A source whose files were deleted, rewritten or renamed in numbers still is backed up; it is kept apart until a person
has judged it. One clear sign is enough, two half as strong ones are too. What a source did before, and was found good,
is no sign: one that is rewritten every day is not suspicious for it. Some signs never count alone, as each has everyday
reasons: that much of the size is gone or new, or that files became such as encrypted ones are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

FIGURES_REMEMBERED = 10
"""How many of the last good backups tell what is usual."""
HALF = 0.5
"""A sign of this share of its threshold counts together with another one."""
ABOVE_USUAL = 1.25
"""How far above the usual a share must be to be a sign."""
TOUCHED_BYTES_PER_FILE = 64
"""Files that were sent again with less new content than this each only had their times changed."""
SMALLEST_SAMPLE = 8
"""Of fewer files that were looked into, nothing is said."""
RANDOM_MINIMUM_BYTES = 512
"""Shorter content cannot be told from random one."""
_RANDOM_CHI_SQUARE = 400
"""Of 256 equally frequent bytes it is 255 give or take 23; of text or programs, thousands and more."""


@dataclass(frozen=True)
class Figures:
    """What a backup found; files are regular ones, and the one before it is the snapshot it was built upon."""

    files_before: int
    files: int
    created: int = 0
    """Files whose names are new."""
    transferred: int = 0
    """Files that were sent: new ones, and those whose content or time changed."""
    renamed: int = 0
    """Files created with the suffix that most of them have."""
    suffix: str = ""
    """That suffix, with its dot."""
    size_bytes_before: int | None = None
    size_bytes: int = 0
    transferred_bytes: int = 0
    """The whole size of the files that were sent."""
    literal_bytes: int = 0
    """What of it was not on the storage already."""
    sampled: int = 0
    """Files that were replaced by others of their name, or of it with a suffix added, and were looked into."""
    became_random: int = 0
    """Those of them that had been none, and are now, such as encrypted ones are."""

    @property
    def deleted(self) -> int:
        """Files that are no longer there."""
        return max(self.files_before + self.created - self.files, 0)

    @property
    def rewritten(self) -> int:
        """Files whose content changed."""
        changed = max(self.transferred - self.created, 0)
        is_touched_only = self.literal_bytes < min(self.transferred_bytes / 2, changed * TOUCHED_BYTES_PER_FILE)
        return 0 if is_touched_only else changed

    def share(self, count: int) -> float:
        """A number of files as a share of those there were before; at most 1."""
        return min(count / self.files_before, 1.0) if self.files_before else 0.0

    @property
    def shrunk_share(self) -> float:
        """What is gone of the size, as a share of what it was."""
        if not self.size_bytes_before:
            return 0.0
        return max(1 - self.size_bytes / self.size_bytes_before, 0.0)

    @property
    def replaced_share(self) -> float:
        """What of the size was replaced by new content, as a share of what it was; at most 1.

        What a source merely grew by is not counted.
        """
        if not self.size_bytes_before:
            return 0.0
        growth = max(self.size_bytes - self.size_bytes_before, 0)
        return min(max(self.literal_bytes - growth, 0) / self.size_bytes_before, 1.0)

    @property
    def random_share(self) -> float:
        """What of the files that were looked into became such as encrypted ones are."""
        return self.became_random / self.sampled if self.sampled >= SMALLEST_SAMPLE else 0.0


@dataclass(frozen=True)
class Thresholds:
    """From which shares on a backup is suspicious, by one sign alone."""

    enabled: bool = True
    minimum_files: int = 20
    """Of a source with fewer files, only that it became empty is a sign."""
    deleted_share: float = 0.5
    rewritten_share: float = 0.5
    renamed_share: float = 0.25
    shrunk_share: float = 0.8
    """The loss of size; it never counts alone: one large file may go."""
    replaced_share: float = 0.8
    """The size that is new content; it never counts alone, nor at half of it: it goes along with rewritten files."""
    unreadable_share: float = 0.1
    """The files that could be read before, and cannot now; it counts alone."""
    random_share: float = 0.5
    """The files that became such as encrypted ones are; it never counts alone: archives and pictures are so too."""


DEFAULT_THRESHOLDS = Thresholds()


@dataclass(frozen=True)
class _Sign:
    text: str
    strength: float
    """1 is enough."""
    counts_alone: bool = True
    counts_from: float = HALF
    """From which strength on it counts together with another one."""


def signs(
    figures: Figures, usual: Sequence[Figures] = (), *, thresholds: Thresholds = DEFAULT_THRESHOLDS
) -> tuple[str, ...]:
    """What makes a backup suspicious, a sentence each; nothing where it is not.

    ``usual`` are the figures of earlier backups that were good. A first backup never is suspicious.
    """
    if not thresholds.enabled or figures.files_before == 0:
        return ()
    if figures.files == 0:
        return (f"the source is empty, it had {figures.files_before} files",)
    if figures.files_before < thresholds.minimum_files:
        return ()
    found = [
        _of_files("deleted", lambda each: each.deleted, thresholds.deleted_share, figures, usual),
        _of_files("rewritten", lambda each: each.rewritten, thresholds.rewritten_share, figures, usual),
        _of_files(
            f"replaced by names that end with {figures.suffix}",
            # Files that came beside the old ones replace nothing.
            lambda each: min(each.renamed, each.deleted),
            thresholds.renamed_share,
            figures,
            usual,
        ),
        _Sign(
            f"{figures.shrunk_share:.0%} of the size is gone ({figures.size_bytes_before} to {figures.size_bytes} "
            "bytes)",
            figures.shrunk_share / thresholds.shrunk_share,
            counts_alone=False,
        ),
        _Sign(
            f"{figures.replaced_share:.0%} of the size is new content",
            _unusual(lambda each: each.replaced_share, thresholds.replaced_share, figures, usual),
            counts_alone=False,
            counts_from=1.0,
        ),
        _Sign(
            f"{figures.became_random} of {figures.sampled} changed files that were looked into became what encrypted "
            "files look like",
            _unusual(lambda each: each.random_share, thresholds.random_share, figures, usual),
            counts_alone=False,
        ),
    ]
    counted = [sign for sign in found if sign.strength >= sign.counts_from]
    if len(counted) > 1 or any(sign.counts_alone and sign.strength >= 1 for sign in counted):
        return tuple(sign.text for sign in counted)
    return ()


def looks_random(content: bytes) -> bool:
    """Whether all bytes are about equally frequent in it, as in encrypted and in well compressed content."""
    if len(content) < RANDOM_MINIMUM_BYTES:
        return False
    expected = len(content) / 256
    counts = Counter(content)
    return sum((counts.get(byte, 0) - expected) ** 2 for byte in range(256)) / expected < _RANDOM_CHI_SQUARE


def _of_files(
    what: str, count: Callable[[Figures], int], threshold: float, figures: Figures, usual: Sequence[Figures]
) -> _Sign:
    number = count(figures)
    text = f"{figures.share(number):.0%} of the files were {what} ({number} of {figures.files_before})"
    return _Sign(text, _unusual(lambda each: each.share(count(each)), threshold, figures, usual))


def _unusual(
    share_of: Callable[[Figures], float], threshold: float, figures: Figures, usual: Sequence[Figures]
) -> float:
    """How strong a sign the share is; none where it is about what is usual."""
    share = share_of(figures)
    usual_share = max((share_of(each) for each in usual), default=0.0)
    # At most all of it can be unusual, so what usually is nearly all never is.
    return 0.0 if share <= usual_share * ABOVE_USUAL else share / threshold
