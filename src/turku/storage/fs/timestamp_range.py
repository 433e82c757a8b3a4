"""The dates that a file system keeps. One beyond them becomes the first or the last of them, and no program is told."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from turku.core.log import one_line
from turku.storage.fs import tree

_FAR_SECONDS = 2**55
"""From the epoch, in both directions: kept by file systems that keep all dates of 64 bits."""
_NS = 10**9
_NAMED = 3


@dataclass(frozen=True)
class DateRange:
    """The first and the last date that is kept, in Unix nanoseconds; None where there is no end."""

    first_ns: int | None = None
    last_ns: int | None = None


def date_range(directory: Path) -> DateRange:
    """Return the dates that are kept there, tried with a file that has no name.

    A file system that refuses to be tried has no limit that is known: no backup is to fail for that.
    """
    with suppress(OSError):
        descriptor = tree.create_unnamed_file(directory)
        try:
            return DateRange(_limit_ns(descriptor, -_FAR_SECONDS), _limit_ns(descriptor, _FAR_SECONDS))
        finally:
            os.close(descriptor)
    return DateRange()


def _limit_ns(descriptor: int, far_seconds: int) -> int | None:
    os.utime(descriptor, ns=(far_seconds * _NS, far_seconds * _NS))
    found_ns = os.fstat(descriptor).st_mtime_ns
    return None if found_ns == far_seconds * _NS else found_ns


@dataclass
class DatesAtLimit:
    """What a backup wrote that has the first or the last date that is kept, so that its own may lie beyond."""

    kept: DateRange
    paths: list[bytes] = field(default_factory=list)
    """The first few of them."""
    count: int = 0

    @property
    def limits_ns(self) -> tuple[int | None, int | None]:
        """The dates that are looked for."""
        return self.kept.first_ns, self.kept.last_ns

    def note(self, paths: list[bytes], count: int) -> None:
        """Take note of so many entries, the first of which are named."""
        self.paths, self.count = paths[:_NAMED], count

    @property
    def sentences(self) -> tuple[str, ...]:
        """Return what people are told; nothing where there is no such entry."""
        if not self.count:
            return ()
        named = ", ".join(one_line(path) for path in self.paths)
        more = f" and {self.count - len(self.paths)} more" if self.count > len(self.paths) else ""
        has = "has" if self.count == 1 else "have"
        return (
            f"{named}{more} {has} the first or the last date that this volume's file system keeps: on the machine the "
            "date may lie beyond (btrfs keeps every date)",
        )
