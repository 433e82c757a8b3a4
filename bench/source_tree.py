"""A tree of files to back up that comes out the same each time, and changes to it that do too.

Sizes are spread as on a system's disk: most files small, a few large, about 17 KB on average. Half of the content is
text that compresses about three to one, half of it does not compress. No two files share a block, so that nothing is
saved by finding what is there already. A few have an ACL, an extended attribute, a second name, or a hole, as they do
on a system's disk.
"""

import hashlib
import math
import os
import random
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from turku.core.filesystem import posix_acl

FILES_IN_DIRECTORY = 12
CHANGED_SHARE = 0.01
_MEDIAN_BYTES = 2200
_SIGMA = 2.02
_LARGEST_BYTES = 24 * 1024 * 1024
_PIECE_BYTES = 512
_PIECES = 32768
_MOMENT_NS = 1_700_000_000_123_456_789
ACL_EVERY, ATTRIBUTE_EVERY, SECOND_NAME_EVERY, HOLE_EVERY = 101, 89, 97, 2003
"""One file in so many has it."""
_HOLE_BYTES = 1024 * 1024
_ATTRIBUTE = "user.comment"


@dataclass(frozen=True)
class SourceTree:
    """A tree of files that are known by number."""

    path: Path
    count: int
    size_bytes: int

    def file(self, number: int) -> Path:
        """Return the path of that file."""
        return self.path / relative_path(number)

    def change(self, generation: int) -> int:
        """Write to one file in a hundred, others each time, hardly changing their sizes, and return how many were
        written to."""
        chance = random.Random(f"changes {generation}")
        numbers = chance.sample(range(self.count), max(1, int(self.count * CHANGED_SHARE)))
        for number in numbers:
            path = self.file(number)
            note = f"changed {generation} {number}\n".encode()
            with path.open("r+b") as file:
                # Holes stay what they are.
                file.seek(chance.randrange(path.stat().st_size + 1))
                file.write(note)
        return len(numbers)


def relative_path(number: int) -> str:
    """Directories three deep, a dozen files in each of the lowest."""
    directory = number // FILES_IN_DIRECTORY
    return (
        f"{directory // 900:02}/part-{directory // 30 % 30:02}/{directory % 30:02}/file-{number:06}.{_suffix(number)}"
    )


def _suffix(number: int) -> str:
    return ("txt", "bin")[number % 2]


def make(path: Path, count: int) -> SourceTree:
    """The tree of ``count`` files, made at ``path``."""
    chance = random.Random(count)
    pieces = _text_pieces()
    total = 0
    directory = None
    for number in range(count):
        target = path / relative_path(number)
        if number % FILES_IN_DIRECTORY == 0:
            directory = target.parent
            directory.mkdir(parents=True)
        if number % SECOND_NAME_EVERY == 1:
            os.link(path / relative_path(number - 1), target)
            continue
        size = min(int(_MEDIAN_BYTES * math.exp(chance.gauss(0, _SIGMA))) + 1, _LARGEST_BYTES)
        if number % 2:
            content = chance.randbytes(size)
        else:
            content = b"".join(chance.choices(pieces, k=size // _PIECE_BYTES + 1))[:size]
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640 if number % 5 else 0o755)
        try:
            os.write(descriptor, content)
            if number % HOLE_EVERY == 0:
                size += _HOLE_BYTES
                os.ftruncate(descriptor, size)
            if number % ACL_EVERY == 0:
                os.setxattr(descriptor, posix_acl.ACCESS, posix_acl.SAMPLE)
            if number % ATTRIBUTE_EVERY == 0:
                os.setxattr(descriptor, _ATTRIBUTE, str(number).encode())
            os.utime(descriptor, ns=(_MOMENT_NS, _MOMENT_NS + number))
        finally:
            os.close(descriptor)
        total += size
    return SourceTree(path, count, total)


def _text_pieces() -> list[bytes]:
    chance = random.Random("text")
    words = ["".join(chance.choices("abcdefghilmnoprstuvw", k=chance.randrange(2, 11))) for _ in range(4000)]
    likelihoods = [1 / (rank + 1) for rank in range(len(words))]
    pieces = []
    for _ in range(_PIECES):
        line = " ".join(chance.choices(words, likelihoods, k=_PIECE_BYTES // 3))
        pieces.append(line.encode()[: _PIECE_BYTES - 1] + b"\n")
    return pieces


def require_same(original: Path, restored: Path, *, properties: Collection[str]) -> None:
    """Return when both trees have the same entries, sizes, modes and times, and content in one file of twenty.

    ``properties`` are those that are compared too, of ``acls``, ``attributes``, ``hard_links`` and ``holes``.
    """
    pairs = zip(_entries(original, properties), _entries(restored, properties), strict=True)
    for number, (one, other) in enumerate(pairs):
        path = str(one[0])
        if one != other:
            raise AssertionError(f"{original / path} is {one}, but what came back is {other}")
        if number % 20 == 0 and not (original / path).is_dir():
            require_same_content(original / path, restored / path)


def require_same_content(original: Path, restored: Path) -> None:
    """Return when both files hold the same."""
    with original.open("rb") as one, restored.open("rb") as other:
        if hashlib.file_digest(one, "sha256").digest() != hashlib.file_digest(other, "sha256").digest():
            raise AssertionError(f"{restored} does not hold what {original} does")


def _entries(tree: Path, properties: Collection[str]) -> Iterator[tuple[object, ...]]:
    for directory, names, files in os.walk(tree):
        names.sort()
        for name in sorted(files):
            path = Path(directory, name)
            status = path.lstat()
            # borg keeps times to the nanosecond, as restic and rsync do.
            entry = (str(path.relative_to(tree)), status.st_size, status.st_mode, status.st_mtime_ns)
            yield (*entry, *_properties(path, status, properties))


def _properties(path: Path, status: os.stat_result, wanted: Collection[str]) -> Iterator[object]:
    names = os.listxattr(path)
    if "acls" in wanted:
        yield os.getxattr(path, posix_acl.ACCESS) if posix_acl.ACCESS in names else None
    if "attributes" in wanted:
        yield os.getxattr(path, _ATTRIBUTE) if _ATTRIBUTE in names else None
    if "hard_links" in wanted:
        yield status.st_nlink
    if "holes" in wanted:
        yield status.st_size > _HOLE_BYTES and status.st_blocks * 512 < status.st_size - _HOLE_BYTES // 2


def used(*directories: Path) -> tuple[int, int]:
    """Bytes and inodes that these directories take on the disk, a hard link counted once."""
    inodes: dict[int, int] = {}
    for top in directories:
        if not top.exists():
            continue
        for directory, names, files in os.walk(top):
            for name in (*names, *files, "."):
                status = os.lstat(os.path.join(directory, name))
                inodes[status.st_ino] = status.st_blocks * 512
    return sum(inodes.values()), len(inodes)
