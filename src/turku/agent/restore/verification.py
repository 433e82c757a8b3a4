"""Verification: each restored file's checksum is compared with the manifest's while other files still arrive.

rsync reports the checksum of every file that it receives. Where that is xxh128, as in the catalog, no file is read
again. Files that were there already, or that rsync did not report, are read here.

A storage chooses what it sends and how much, so entries that wait to be compared take a bounded amount of memory.
"""

import logging
import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from turku.agent.restore import manifest
from turku.agent.restore.file_metadata import link_target
from turku.agent.restore.manifest import checksum_of
from turku.agent.restore.result import ProblemList
from turku.core.filesystem import directory_tree, extended_attributes
from turku.core.filesystem.paths import split
from turku.core.filesystem.spool import BloomFilter, Spool
from turku.errors import MalformedMessage
from turku.protocol.restore_messages import Kind, ManifestEntry, path_bytes

_WAITING_LIMIT = 50_000
_WAITING_LIMIT_BYTES = 16 * 1024 * 1024
_SPOOL_LIMIT_BYTES = 4 * 1024**3
_TARGET_LIMIT_BYTES = 4096
"""The greatest length of a symbolic link on Linux."""
_LOG = logging.getLogger(__name__)
_TYPES: dict[Kind, int] = {
    "directory": stat.S_IFDIR,
    "fifo": stat.S_IFIFO,
    "socket": stat.S_IFSOCK,
    "block": stat.S_IFBLK,
    "character": stat.S_IFCHR,
}


class _ExpectedEntry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The compared part of a manifest entry."""

    kind: Kind
    checksum: bytes | None = None
    is_sent: bool = False
    target: bytes | None = None
    is_repeated: bool = False
    """The manifest named the path before, so that it is counted already."""


class Verification:
    """Compares the manifest's entries with the files that arrived below ``tree`` or were there already.

    One thread reports the manifest's entries, and another one the received files.
    """

    def __init__(
        self,
        tree: int,
        *,
        has_xxh128: bool,
        open_file: Callable[[bytes], int] | None = None,
        spool_directory: Path | None = None,
        holds_attributes: bool = True,
    ) -> None:
        """Prepare a verification of the open directory ``tree``.

        ``has_xxh128`` says that rsync's checksums are xxh128. ``open_file`` opens a path for reading. Entries that
        exceed the memory limit go to ``spool_directory``. ``holds_attributes`` says that extended attributes and ACLs
        of every kind can be set below ``tree``.
        """
        self.files = 0
        self.size_bytes = 0
        self.received_files = 0
        self.received_bytes = 0
        self.entries = 0
        self.verified = 0
        self.mismatched = 0
        self.unverifiable = 0
        self.missing = 0
        self.without_attributes = 0
        """Files without the attributes that were backed up, because these cannot be set here."""
        self.problems = ProblemList()
        self._has_xxh128 = has_xxh128
        self._tree = tree
        self._open_file = open_file or (lambda path: directory_tree.open_file(tree, path))
        self._lock = threading.RLock()
        # An OrderedDict, as a dict finds its oldest key slowly after many removals.
        self._expected: OrderedDict[bytes, _ExpectedEntry] = OrderedDict()
        self._expected_bytes = 0
        self._received: OrderedDict[bytes, bytes] = OrderedDict()
        self._received_bytes = 0
        self._deferred = Spool(spool_directory)
        self._with_attributes = Spool(spool_directory)
        self._holds_attributes = holds_attributes
        self._named = BloomFilter()

    def close(self) -> None:
        self._deferred.close()
        self._with_attributes.close()

    def is_in_manifest(self, path: bytes) -> bool:
        """Return True where the manifest has named the path."""
        return path in self._named

    def expect(self, entry: ManifestEntry) -> None:
        """Add an entry of the manifest. Raises MalformedMessage for an invalid path or target."""
        path = manifest.checked_path(entry.path)
        target = None if entry.target is None else path_bytes(entry.target)
        if target is not None and len(target) >= _TARGET_LIMIT_BYTES:
            raise MalformedMessage("the storage's manifest: a symbolic link of more than 4,095 bytes")
        self.entries += 1
        is_repeated = path in self._named
        self._named.add(path)
        if entry.kind != "file":
            self._done(0)
            # Links are compared last, because rsync creates a link after the manifest named it.
            self._defer(path, _ExpectedEntry(entry.kind, target=target if entry.kind == "link" else None))
            return
        wanted = _ExpectedEntry("file", entry.checksum, entry.is_sent, is_repeated=is_repeated)
        if entry.attributes and entry.is_sent and not is_repeated:
            self._add(self._with_attributes, (path, entry.attributes))
        if not entry.is_sent:
            self._done(entry.size_bytes)
            self._read(path, wanted)
            return
        with self._lock:
            checksum = self._received.pop(path, None)
            if checksum is None:
                self._expect(path, wanted)
            else:
                self._received_bytes -= len(path)
        if checksum is not None:
            self._compare(path, wanted, checksum)

    def received(self, path: bytes, checksum: bytes, size_bytes: int) -> None:
        """Add a file that rsync has received completely."""
        self._done(size_bytes)
        with self._lock:
            self.received_files += 1
            self.received_bytes += size_bytes
        if not self._has_xxh128 or len(checksum) != 16:
            return
        with self._lock:
            wanted = self._expected.pop(path, None)
            if wanted is not None:
                self._expected_bytes -= len(path)
            else:
                self._received[path] = checksum
                self._received_bytes += len(path)
                while len(self._received) > _WAITING_LIMIT or self._received_bytes > _WAITING_LIMIT_BYTES:
                    # The file is read instead when its entry arrives.
                    self._received_bytes -= len(self._received.popitem(last=False)[0])
        if wanted is not None:
            self._compare(path, wanted, checksum)

    def finish(self, *, repairs_links: bool) -> None:
        """Compare the remaining entries after everything was received.

        ``repairs_links`` says that rsync, not locked into the tree, changes links that lead out of it. They are made
        here as they were backed up.
        """
        for path, wanted in self._expected.items():
            self._compare_remaining(path, wanted, repairs_links=repairs_links)
        self._expected.clear()
        for item in self._deferred:
            path, wanted = msgspec.msgpack.decode(item, type=tuple[bytes, _ExpectedEntry])
            self._compare_remaining(path, wanted, repairs_links=repairs_links)
        for item in self._with_attributes:
            self._compare_attributes(*msgspec.msgpack.decode(item, type=tuple[bytes, bytes]))
        if self.without_attributes:
            _LOG.warning("extended attributes or ACLs of %d files cannot be set here", self.without_attributes)

    def _compare_attributes(self, path: bytes, expected: bytes) -> None:
        """Compare a file's attributes with the digest of the backup's. A missing file was reported already."""
        try:
            descriptor = self._open_file(path)
        except OSError:
            return
        try:
            found = extended_attributes.digest_of(descriptor)
            if found != expected:
                # A machine with SELinux labels a file itself where the storage could keep no label.
                found = extended_attributes.digest_of(descriptor, without=[extended_attributes.LABEL])
        except OSError:
            found = None
        finally:
            os.close(descriptor)
        if found == expected:
            return
        if self._holds_attributes:
            self.mismatched += 1
            self.problems.add(path, "has other extended attributes or ACLs than what was backed up")
        else:
            self.without_attributes += 1

    def _compare_remaining(self, path: bytes, wanted: _ExpectedEntry, *, repairs_links: bool) -> None:
        if wanted.kind == "file":
            checksum = self._received.pop(path, None)
            if checksum is None:
                self._read(path, wanted)
            else:
                self._compare(path, wanted, checksum)
        elif wanted.kind == "link":
            if wanted.target is None or link_target(self._tree, path) == wanted.target:
                return
            if repairs_links:
                with suppress(OSError):
                    self._remake_link(path, wanted.target)
            if link_target(self._tree, path) != wanted.target:
                self.mismatched += 1
                self.problems.add(path, "is not the link that was backed up")
        else:
            found = directory_tree.status(self._tree, path)
            if found is not None and stat.S_IFMT(found.st_mode) != _TYPES[wanted.kind]:
                self.mismatched += 1
                self.problems.add(path, f"is not the {wanted.kind} that was backed up")

    def _expect(self, path: bytes, wanted: _ExpectedEntry) -> None:
        waiting = self._expected.get(path)
        if waiting is None:
            self._expected_bytes += len(path)
        elif not waiting.is_repeated:
            # The previous entry of this path was not compared yet, and never will be.
            wanted = msgspec.structs.replace(wanted, is_repeated=False)
        self._expected[path] = wanted
        while len(self._expected) > _WAITING_LIMIT or self._expected_bytes > _WAITING_LIMIT_BYTES:
            oldest, its = self._expected.popitem(last=False)
            self._expected_bytes -= len(oldest)
            self._defer(oldest, its)

    def _defer(self, path: bytes, wanted: _ExpectedEntry) -> None:
        self._add(self._deferred, (path, wanted))

    def _add(self, spool: Spool, item: tuple[bytes, object]) -> None:
        if spool.size_bytes > _SPOOL_LIMIT_BYTES:
            raise MalformedMessage("the storage's manifest is larger than that of any restore")
        spool.add(msgspec.msgpack.encode(item))

    def _done(self, size_bytes: int) -> None:
        with self._lock:
            self.files += 1
            self.size_bytes += size_bytes

    def _read(self, path: bytes, wanted: _ExpectedEntry) -> None:
        try:
            checksum = checksum_of(self._open_file(path))
        except FileNotFoundError:
            self.missing += 1
            self.problems.add(path, "is not there")
        except PermissionError:
            self.unverifiable += 1
            self.problems.add(path, "cannot be read, and was not compared")
        except OSError as error:
            self.mismatched += 1
            self.problems.add(path, f"cannot be compared: {error.strerror}")
        else:
            self._compare(path, wanted, checksum)

    def _compare(self, path: bytes, wanted: _ExpectedEntry, checksum: bytes) -> None:
        with self._lock:
            if wanted.checksum is not None and wanted.checksum != checksum:
                self.mismatched += 1
                self.problems.add(
                    path,
                    "is not what was backed up: the storage has other content than its catalog says"
                    if wanted.is_sent
                    else "is not what was backed up, though size and time are the same (--compare-contents)",
                )
            elif wanted.is_repeated:
                # rsync sends a file again that changed or was damaged on the way. It still is one file.
                return
            elif wanted.checksum is not None:
                self.verified += 1
            else:
                self.unverifiable += 1

    def _remake_link(self, path: bytes, target: bytes) -> None:
        if link_target(self._tree, path) is None:
            return
        above, name = split(path)
        with directory_tree.opened_directory(self._tree, above) as directory:
            status, parent = os.stat(name, dir_fd=directory, follow_symlinks=False), os.fstat(directory)
            fresh = b".turku-link-" + os.urandom(8).hex().encode()
            os.symlink(target, fresh, dir_fd=directory)
            os.rename(fresh, name, src_dir_fd=directory, dst_dir_fd=directory)
            os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=directory, follow_symlinks=False)
            os.utime(directory, ns=(parent.st_atime_ns, parent.st_mtime_ns))
