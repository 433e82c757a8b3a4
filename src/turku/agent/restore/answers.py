"""The answers of a storage while it sends the files of a restore, and what they say about single files.

A storage says which files have holes, as rsync would write every file in pieces of one kilobyte if it were asked for
holes. It also names attributes that cannot be set in the target. A file that loses its ACL keeps the mask of the ACL as
the permissions of its group, which may be more than the group was allowed. Its mode is then reduced to what the ACL
allowed.
"""

import logging
import os
import stat
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from turku.agent.restore import manifest
from turku.agent.restore.result import ProblemList
from turku.agent.restore.verification import Verification
from turku.core.filesystem import directory_tree, holes, posix_acl, removal
from turku.core.filesystem.paths import split
from turku.core.filesystem.spool import Spool
from turku.core.log import one_line
from turku.core.units import count_of
from turku.errors import MalformedMessage, TurkuError
from turku.protocol.restore_messages import (
    WITH_HOLES_LIMIT,
    WITH_HOLES_LIMIT_BYTES,
    Answer,
    Manifest,
    RestoreEnd,
    Unset,
    UnsetEntry,
    WirePath,
    WithHoles,
)

_LOG = logging.getLogger(__name__)


class AnswerReader(threading.Thread):
    """Reads the storage's answers to their end."""

    def __init__(
        self, answers: Iterator[Answer], verification: Verification, unsupported: "UnsupportedAttributes"
    ) -> None:
        super().__init__(name="restore answers", daemon=True)
        self.end: RestoreEnd | None = None
        self.problem: TurkuError | None = None
        """The reason for which the restore ends before its end: an answer, or a limit that the storage exceeded."""
        self._answers = answers
        self._verification = verification
        self.sparse_files = SparseFiles()
        self.unsupported = unsupported

    @property
    def lost_count(self) -> int:
        """The number of files that the storage's catalog lists and its snapshot lacks."""
        return 0 if self.end is None else max(self.end.lost_count, len(self.end.lost))

    @property
    def is_complete(self) -> bool:
        """True where the storage's rsync ended well."""
        return self.problem is None and self.end is not None and self.end.rsync_exit_code == 0

    def run(self) -> None:
        try:
            for answer in self._answers:
                self._take(answer)
                if self.end is not None:
                    return
        except TurkuError as error:
            # The first problem counts: an answer that is cut off is a consequence of it.
            self.problem = self.problem or error
        except (OSError, ValueError) as error:
            _LOG.debug("the storage's answers ended: %s", error)

    def _take(self, answer: Answer) -> None:
        # ``Deleted`` answers are ignored, because the placement counts what it deletes.
        if isinstance(answer, Manifest):
            for entry in answer.entries:
                self._verification.expect(entry)
        elif isinstance(answer, WithHoles):
            self.sparse_files.add(answer.paths)
        elif isinstance(answer, Unset):
            for unset in answer.entries:
                self.unsupported.add(unset)
        elif isinstance(answer, RestoreEnd):
            self.end = answer


_CHANGING_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class SparseFiles:
    """The files of one restore that have holes. One thread adds them."""

    def __init__(self) -> None:
        self._paths: set[bytes] = set()
        self._size_bytes = 0

    def add(self, paths: Iterable[WirePath]) -> None:
        """Add paths that the storage sent. Raises MalformedMessage for an invalid path, and for too many paths."""
        for each in paths:
            path = manifest.checked_path(each, "list of files with holes")
            self._paths.add(path)
            self._size_bytes += len(path)
        if len(self._paths) > WITH_HOLES_LIMIT or self._size_bytes > WITH_HOLES_LIMIT_BYTES:
            raise MalformedMessage("the storage's list of files with holes is too long")

    def dig_holes(self, tree: int, problems: ProblemList) -> None:
        """Make holes in the files that arrived below ``tree``. A file that has holes already stays as it is."""
        for path in sorted(self._paths):
            try:
                descriptor = directory_tree.open_file(tree, path, _CHANGING_FLAGS)
            except PermissionError as error:
                problems.add(path, f"is restored without its holes: {error.strerror}")
                continue
            except OSError as error:
                # A file that did not arrive is reported elsewhere.
                _LOG.debug("%s: no holes are made: %s", os.fsdecode(path), error.strerror)
                continue
            try:
                if not holes.has_holes(os.fstat(descriptor)):
                    holes.punch_all_zeros(descriptor)
            except OSError as error:
                problems.add(path, f"is restored without its holes: {error.strerror}")
            finally:
                os.close(descriptor)


_SPOOL_LIMIT_BYTES = 4 * 1024**3
_NAMED_LIMIT = 20
"""The most attributes that are named, because a storage decides how many there are."""
_HANDLE_FLAGS = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class UnsupportedAttributes:
    """The attributes that one restore could not set. One thread adds them."""

    def __init__(self, spool_directory: Path | None = None) -> None:
        self._acls = Spool(spool_directory)
        self._names: Counter[str] = Counter()
        self._others = 0

    def close(self) -> None:
        self._acls.close()

    def add(self, entry: UnsetEntry) -> None:
        """Add the attributes of one path. Raises MalformedMessage for an invalid path."""
        path = manifest.checked_path(entry.path, "list of attributes")
        if self._acls.size_bytes > _SPOOL_LIMIT_BYTES:
            raise MalformedMessage("the storage's list of attributes is larger than that of any restore")
        if posix_acl.ACCESS in entry.names or posix_acl.DEFAULT in entry.names:
            self._acls.add(msgspec.msgpack.encode((path, entry.group)))
        for name in entry.names:
            if name in (posix_acl.ACCESS, posix_acl.DEFAULT):
                continue
            if name in self._names or len(self._names) < _NAMED_LIMIT:
                self._names[name] += 1
            else:
                self._others += 1

    def narrow_modes(self, tree: int, problems: ProblemList) -> None:
        """Reduce the mode of each file below ``tree`` to what its lost ACL allowed, and add it to the problems."""
        for item in self._acls:
            path, group = msgspec.msgpack.decode(item, type=tuple[bytes, int | None])
            problems.add(path, "is restored without its ACL, which cannot be set here: whom that named may do less")
            if group is not None:
                try:
                    _narrow_mode(tree, path, group)
                except OSError as error:
                    problems.add(path, f"may be open to its group, as its mode cannot be changed: {error.strerror}")

    def warnings(self) -> Iterator[str]:
        """Yield a sentence for each attribute that files lose, other than ACLs."""
        for name, count in sorted(self._names.items()):
            yield f"{count_of(count, 'file')} restored without the attribute {one_line(name)}, which cannot be set here"
        if self._others:
            yield f"{count_of(self._others, 'further attribute')} of files cannot be set here"


def _narrow_mode(tree: int, path: bytes, group: int) -> None:
    above, name = split(path)
    try:
        with directory_tree.opened_directory(tree, above) as directory:
            handle = os.open(name or b".", _HANDLE_FLAGS, dir_fd=directory)
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        found = os.fstat(handle)
        if not stat.S_ISLNK(found.st_mode):
            removal.set_mode_of_handle(handle, posix_acl.narrowed(stat.S_IMODE(found.st_mode), group))
    finally:
        os.close(handle)
