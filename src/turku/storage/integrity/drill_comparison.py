"""The comparison of a drill: restored files against the catalog and the snapshot's tree."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase

from turku.core.filesystem.directory_tree import DirectoryTree
from turku.core.filesystem.extended_attributes import ACCESS_ACL, DEFAULT_ACL
from turku.core.filesystem.paths import split
from turku.core.log import one_line
from turku.storage.catalog import CatalogEntry, EntryKind
from turku.storage.catalog.scan import attributes_of
from turku.storage.fs.stored_content import RateLimiter, checksum
from turku.storage.integrity.drill_record import DrillResult
from turku.storage.rsync.file_system_support import FileSystemSupport


class DrillComparison:
    """A comparison of the restored tree with the catalog's entries. It counts and reports in the drill's result."""

    def __init__(
        self, result: DrillResult, restored: DirectoryTree, stored: DirectoryTree, system: FileSystemSupport
    ) -> None:
        self._result = result
        self._restored = restored
        self._stored = stored
        self._system = system

    def compare(self, entry: CatalogEntry) -> None:
        """Compare one entry. A difference is a problem of the drill."""
        self._compare_content(entry)
        if entry.kind in (EntryKind.FILE, EntryKind.DIRECTORY) and entry.attributes is not None:
            self._compare_attributes(entry)

    def _compare_content(self, entry: CatalogEntry) -> None:
        shown = one_line(entry.path)
        try:
            if entry.kind is EntryKind.FILE:
                self._compare_file(entry, shown)
            else:
                self._compare_other(entry, shown)
        except OSError as error:
            reason = "was not restored" if error.errno == errno.ENOENT else error.strerror
            self._result.problems.append(f"{shown}: {reason}")

    def _compare_file(self, entry: CatalogEntry, shown: str) -> None:
        result = self._result
        descriptor = self._restored.open_file(entry.path)
        try:
            size = os.fstat(descriptor).st_size
            result.files += 1
            result.size_bytes += size
            if size != entry.size:
                result.problems.append(f"{shown}: has {size} bytes, and should have {entry.size}")
            elif entry.checksum is None:
                result.unchecked += 1
            elif checksum(descriptor, RateLimiter()) != entry.checksum:
                result.problems.append(f"{shown}: its content is not what was backed up")
        finally:
            os.close(descriptor)

    def _compare_attributes(self, entry: CatalogEntry) -> None:
        def counts(name: str) -> bool:
            return (
                (self._system.attributes and name.startswith("user."))
                or (self._system.acls and name in (ACCESS_ACL, DEFAULT_ACL))
                or any(fnmatchcase(name, pattern) for pattern in self._system.privileged_attributes)
            )

        try:
            with _opened(self._restored, entry) as restored, _opened(self._stored, entry) as kept:
                found = attributes_of(restored)
                if found in (entry.attributes, None):
                    return
                is_all_that_can_be = found == attributes_of(kept, counts=counts)
                is_as_recorded = attributes_of(kept) == entry.attributes
        except OSError:
            # It is reported as missing already.
            return
        if is_all_that_can_be and is_as_recorded:
            self._result.skipped_attributes += 1
        else:
            self._result.problems.append(
                f"{one_line(entry.path)}: its extended attributes or ACLs are not what was backed up"
            )

    def _compare_other(self, entry: CatalogEntry, shown: str) -> None:
        status = self._restored.status(entry.path)
        self._result.files += 1
        # A storage without root keeps a link as a file with attributes.
        if entry.kind is EntryKind.LINK and stat.S_ISLNK(status.st_mode):
            directory, name = split(entry.path)
            if os.readlink(name, dir_fd=self._restored.directory(directory)) != entry.link_target:
                self._result.problems.append(f"{shown}: the link leads elsewhere than the one that was backed up")


@contextmanager
def _opened(tree: DirectoryTree, entry: CatalogEntry) -> Iterator[int]:
    """Open the file or directory for the length of the block, and yield its descriptor. Raises OSError."""
    if entry.kind is EntryKind.DIRECTORY:
        yield tree.directory(entry.path)
        return
    descriptor = tree.open_file(entry.path)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
