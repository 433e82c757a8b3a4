"""Links, FIFOs, sockets and devices whose attributes rsync leaves out, as the tree that it compares with has them.

With ``--copy-dest`` rsync makes such an entry anew, and the machine sends attributes only where they differ from those
that the entry has in that tree; but nothing copies them from there (seen with 3.5.0). What has none there
cannot lose any. All others are to be fetched without anything to compare with.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from turku.core.paths import split
from turku.storage.catalog.entry import DIRECTORY, FILE, NO_ATTRIBUTES
from turku.storage.catalog.scan import SnapshotReader


class DroppedAttributes:
    """The trees that rsync compares with; a context manager."""

    def __init__(self, trees: Sequence[Path], *, fake_super: bool) -> None:
        """With ``fake_super`` rsync keeps such entries as files with attributes. Raises OSError."""
        self._fake_super = fake_super
        with ExitStack() as stack:
            self._trees = [stack.enter_context(SnapshotReader(tree, has_attributes=fake_super)) for tree in trees]
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def drops(self, path: bytes) -> bool:
        """Return True where one of the trees has an entry there that is no file or directory, with attributes."""
        above, name = split(path)
        for tree in self._trees:
            directory = tree.find_directory(above)
            found = None if directory is None else tree.entry(directory, name)
            if found is not None and found.kind not in (FILE, DIRECTORY) and found.attributes != NO_ATTRIBUTES:
                return True
        return False

    def dropped_in(self, made: Path) -> Iterator[bytes]:
        """Yield the paths of a tree that rsync made, for which that is so. Raises OSError."""
        if not self._trees:
            return
        with SnapshotReader(made) as tree:
            for each in tree.walk():
                may_be = self._fake_super if each.is_file else not each.is_directory
                if may_be and self.drops(each.full_path):
                    yield each.full_path
