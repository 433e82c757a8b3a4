"""Is what was restored what was backed up? Each file's checksum against that of the manifest, while others still come.

rsync checks every file that it receives and says by what; where that is xxh128, as the catalog's checksums are, nothing
is read again. What was there already, or what rsync did not tell of, is read here.
"""

from __future__ import annotations

import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import xxhash

from turku.agent.target import open_directory
from turku.core.log import one_line
from turku.errors import MalformedMessage, PolicyError
from turku.policy import names
from turku.protocol.restore_messages import ManifestEntry, path_bytes

PROBLEMS_LIMIT = 1000
"""Sentences that are kept; the rest is counted."""
_WAITING_LIMIT = 50_000
_CHUNK_BYTES = 1024 * 1024
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Verification:
    """Compares the manifest's entries with what is below ``root``. ``by_received``: rsync's checksums are xxh128.

    Told of the manifest by one thread, and of received files by another; memory is bounded whatever comes.
    """

    def __init__(self, root: Path, *, by_received: bool, on_seen: Callable[[bytes], None] = lambda _path: None) -> None:
        self.files = 0
        self.size_bytes = 0
        self.verified = 0
        self.mismatched = 0
        self.unverifiable = 0
        self.missing = 0
        self.problems: list[str] = []
        self._by_received = by_received
        self._on_seen = on_seen
        self._lock = threading.RLock()
        # A dict finds its oldest key the slower the more of them are gone.
        self._expected: OrderedDict[bytes, ManifestEntry] = OrderedDict()
        self._received: OrderedDict[bytes, bytes] = OrderedDict()
        self._links: list[tuple[bytes, bytes]] = []
        self._root = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)

    def close(self) -> None:
        os.close(self._root)

    def expect(self, entry: ManifestEntry) -> None:
        """Take note of what a path has to be. Raises MalformedMessage for a path that is none."""
        try:
            path = names.path_inside(path_bytes(entry.path))
        except PolicyError as error:
            raise MalformedMessage(f"the storage's manifest: {error.message}") from error
        self._on_seen(path)
        if entry.kind == "link":
            self._link(path, entry)
        elif entry.kind != "file":
            self._done(0)
        elif not entry.is_sent:
            self._done(entry.size_bytes)
            self._read(path, entry)
        else:
            with self._lock:
                checksum = self._received.pop(path, None)
                if checksum is None:
                    self._expected[path] = entry
            if checksum is not None:
                self._compare(path, entry, checksum)
            self._bound()

    def received(self, path: bytes, checksum: bytes, size_bytes: int) -> None:
        """Take note of a file that rsync has put in its place."""
        self._done(size_bytes)
        if not self._by_received or len(checksum) != 16:
            return
        with self._lock:
            entry = self._expected.pop(path, None)
            if entry is None:
                self._received[path] = checksum
                if len(self._received) > _WAITING_LIMIT:
                    # Whoever asks for it later reads the file.
                    self._received.popitem(last=False)
        if entry is not None:
            self._compare(path, entry, checksum)

    def finish(self, *, repairs_links: bool) -> None:
        """Compare what is left, after everything was received. ``repairs_links``: rsync, not locked into the target,
        changes links that lead out of it; they are made here as they were backed up."""
        while self._expected:
            path, entry = self._expected.popitem()
            self._read(path, entry)
        for path, wanted in self._links:
            if repairs_links:
                with suppress(OSError):
                    self._remake_link(path, wanted)
            if self._link_target(path) != wanted:
                self.mismatched += 1
                self._problem(path, "is not the link that was backed up")

    def _bound(self) -> None:
        while len(self._expected) > _WAITING_LIMIT:
            with self._lock:
                path, entry = self._expected.popitem(last=False)
            # rsync is far beyond it: it could not write it, or its name has a line break.
            self._read(path, entry)

    def _done(self, size_bytes: int) -> None:
        with self._lock:
            self.files += 1
            self.size_bytes += size_bytes

    def _read(self, path: bytes, entry: ManifestEntry) -> None:
        try:
            checksum = self._checksum(path)
        except FileNotFoundError:
            self.missing += 1
            self._problem(path, "is not there")
        except PermissionError:
            self.unverifiable += 1
            self._problem(path, "cannot be read, and was not compared")
        except OSError as error:
            self.mismatched += 1
            self._problem(path, f"cannot be compared: {error.strerror}")
        else:
            self._compare(path, entry, checksum)

    def _checksum(self, path: bytes) -> bytes:
        descriptor = os.open(path, _READ_FLAGS, dir_fd=self._root)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(0, "it is no file")
            hasher = xxhash.xxh128()
            while chunk := os.read(descriptor, _CHUNK_BYTES):
                hasher.update(chunk)
            return hasher.digest()
        finally:
            os.close(descriptor)

    def _compare(self, path: bytes, entry: ManifestEntry, checksum: bytes) -> None:
        with self._lock:
            if entry.checksum is not None and entry.checksum != checksum:
                self.mismatched += 1
                self._problem(
                    path,
                    "is not what was backed up: the storage has other content than its catalog says"
                    if entry.is_sent
                    else "is not what was backed up, though size and time are the same (--compare-contents)",
                )
            elif entry.checksum is not None and entry.is_recorded:
                self.verified += 1
            else:
                self.unverifiable += 1

    def _link(self, path: bytes, entry: ManifestEntry) -> None:
        self._done(0)
        if entry.target is not None and (wanted := path_bytes(entry.target)) != self._link_target(path):
            self._links.append((path, wanted))

    def _link_target(self, path: bytes) -> bytes | None:
        try:
            return os.readlink(path, dir_fd=self._root)
        except OSError:
            return None

    def _remake_link(self, path: bytes, target: bytes) -> None:
        if self._link_target(path) is None:
            return
        above, _slash, name = path.rpartition(b"/")
        directory = open_directory(self._root, above)
        try:
            status, parent = os.stat(name, dir_fd=directory, follow_symlinks=False), os.fstat(directory)
            fresh = b".turku-link-" + os.urandom(8).hex().encode()
            os.symlink(target, fresh, dir_fd=directory)
            os.rename(fresh, name, src_dir_fd=directory, dst_dir_fd=directory)
            os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=directory, follow_symlinks=False)
            os.utime(directory, ns=(parent.st_atime_ns, parent.st_mtime_ns))
        finally:
            os.close(directory)

    def _problem(self, path: bytes, what: str) -> None:
        if len(self.problems) < PROBLEMS_LIMIT:
            self.problems.append(f"{one_line(path)} {what}")
