"""Attributes of links, FIFOs, sockets and devices that rsync drops with ``--copy-dest``.

With this option rsync makes such an entry anew, and the machine sends attributes only if they differ from those of the
entry in the basis, but nothing copies them from there (seen with 3.5.0). An entry without attributes in the basis
cannot lose any. All others are fetched without a basis.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from turku.core.filesystem.paths import split
from turku.storage.catalog.entry import DIRECTORY, FILE, NO_ATTRIBUTES
from turku.storage.catalog.scan import SnapshotReader


class DroppedAttributes:
    """The basis trees with their attributes. A context manager."""

    def __init__(self, trees: Sequence[Path], *, fake_super: bool) -> None:
        """With ``fake_super`` rsync stores such entries as files with attributes. Raises OSError."""
        self._fake_super = fake_super
        with ExitStack() as stack:
            self._trees = [stack.enter_context(SnapshotReader(tree, has_attributes=fake_super)) for tree in trees]
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._stack.close()

    def drops(self, path: bytes) -> bool:
        """Return True if one of the trees has an entry with attributes there that is no file or directory."""
        above, name = split(path)
        for tree in self._trees:
            directory = tree.find_directory(above)
            found = None if directory is None else tree.entry(directory, name)
            if found is not None and found.kind not in (FILE, DIRECTORY) and found.attributes != NO_ATTRIBUTES:
                return True
        return False

    def dropped_in(self, made: Path) -> Iterator[bytes]:
        """Yield the paths in a tree made by rsync whose attributes were dropped. Raises OSError."""
        if not self._trees:
            return
        with SnapshotReader(made) as tree:
            for each in tree.walk():
                is_candidate = self._fake_super if each.is_file else not each.is_directory
                if is_candidate and self.drops(each.full_path):
                    yield each.full_path
