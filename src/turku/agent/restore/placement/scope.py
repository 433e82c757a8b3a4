"""The scope of a placement: the directories, the rules and the problem list that all of its parts share."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field

from turku.agent.restore import file_metadata
from turku.agent.restore.result import ProblemList
from turku.agent.restore.staging.basis_files import BasisFiles, Overwrite
from turku.agent.restore.staging.staging_directory import StagingDirectory
from turku.core.filesystem import removal
from turku.protocol.restore_messages import Settable


@dataclass(frozen=True)
class PlacementScope:
    """The target, the staging directory, and the rules for entries that the target already has."""

    target: int
    """The descriptor of the open target."""
    staging: StagingDirectory
    basis_files: BasisFiles
    overwrite: Overwrite
    replaces_directories: bool
    """A directory that is not empty may give way to something that is not a directory."""
    kinds: frozenset[Settable]
    """The kinds of attributes that can be set in the target."""
    removed_kinds: frozenset[Settable]
    """The kinds of attributes that are removed from a file which the snapshot has without them."""
    problems: ProblemList = field(default_factory=ProblemList)
    is_root: bool = field(default_factory=lambda: os.geteuid() == 0)
    group: int = field(default_factory=os.getegid)

    @property
    def tree(self) -> int:
        """The descriptor of the received tree in the staging directory."""
        return self.staging.tree

    def may_replace(self, there: os.stat_result, received: os.stat_result) -> bool:
        """Return True where the entry of the target may be replaced by the received one."""
        if self.overwrite == "older" and stat.S_ISREG(there.st_mode) and stat.S_ISREG(received.st_mode):
            return there.st_mtime_ns <= received.st_mtime_ns
        return self.overwrite != "never"

    def make_room(self, outer: int, name: bytes, there: os.stat_result | None) -> None:
        """Remove a directory of the target that stands in the way. One that is not empty goes only with ``--delete``.

        Raises OSError.
        """
        if there is None or not stat.S_ISDIR(there.st_mode):
            return
        if self.replaces_directories:
            removal.remove(outer, name)
        else:
            os.rmdir(name, dir_fd=outer)

    def attributes(self, inner: int, outer: int, name: bytes) -> tuple[dict[str, bytes], dict[str, bytes]]:
        """Return the attributes that a name has in the target, and those that arrived for it."""
        has, wanted = (file_metadata.read(file_metadata.proc_path(each, name), self.kinds) for each in (outer, inner))
        return has, wanted

    def report_failed(self, path: bytes, failed: Sequence[str]) -> None:
        """Add the attributes that could not be set to the problems."""
        if failed:
            self.problems.add(path, f"is restored without {', '.join(sorted(failed))}, which cannot be set there")


def status_of(directory: int, name: bytes) -> os.stat_result | None:
    """Return the status of a name in an open directory without following a link, or None where it is missing."""
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None
