"""Files that the target already has: they keep their content and get the received metadata and names."""

import os
import stat
from collections.abc import Sequence
from contextlib import suppress

from turku.agent.restore import file_metadata
from turku.agent.restore.placement.scope import PlacementScope, copy_file, status_of
from turku.core.filesystem import directory_tree
from turku.core.filesystem.paths import split


class ExistingFiles:
    """Adjusts the files of the target for which basis files stood in the received tree."""

    def __init__(self, scope: PlacementScope) -> None:
        self._scope = scope

    def keep(self, inner: int, outer: int, path: bytes, basis: os.stat_result) -> None:
        """Keep the content of a file of the target, and give it the metadata of its basis file. Raises OSError."""
        there = status_of(outer, path.rpartition(b"/")[2])
        # A basis file that only marks the name as taken has neither the size nor the attributes of the entry.
        is_same = there is not None and stat.S_ISREG(there.st_mode) and there.st_size == basis.st_size
        if there is not None and is_same and self._scope.overwrite != "never":
            self._adjust(inner, outer, path, there, basis)

    def link(self, outer: int, path: bytes, there: os.stat_result | None, originals: Sequence[bytes]) -> None:
        """Make ``path`` a hard link to a file of the target, because rsync made it a link to that file's basis file.

        ``originals`` are the names that the file had. Raises OSError.
        """
        scope = self._scope
        name = path.rpartition(b"/")[2]
        for other in originals:
            # Before the file gets one more name, as its number of links shows whether it has names elsewhere.
            self._keep_original(other)
            original = directory_tree.status(scope.target, other)
            if original is None or not stat.S_ISREG(original.st_mode):
                continue
            if there is not None and (there.st_dev, there.st_ino) == (original.st_dev, original.st_ino):
                return
            if there is not None and not scope.may_replace(there, original):
                return
            above, last = split(other)
            with (
                directory_tree.opened_directory(scope.target, above) as directory,
                scope.prepared.staging.scratch_name() as (scratch, scratch_name),
            ):
                os.link(last, scratch_name, src_dir_fd=directory, dst_dir_fd=scratch, follow_symlinks=False)
                scope.make_room(outer, name, there)
                os.rename(scratch_name, name, src_dir_fd=scratch, dst_dir_fd=outer)
            return
        scope.problems.add(path, "could not be restored: the file that it is a hard link to is gone")

    def _keep_original(self, path: bytes) -> None:
        above, name = split(path)
        with (
            directory_tree.opened_directory(self._scope.tree, above) as inner,
            suppress(FileNotFoundError, NotADirectoryError),
        ):
            basis = status_of(inner, name)
            with directory_tree.opened_directory(self._scope.target, above) as outer:
                if basis is not None:
                    self.keep(inner, outer, path, basis)

    def _adjust(self, inner: int, outer: int, path: bytes, there: os.stat_result, basis: os.stat_result) -> None:
        """Give a file of the target what rsync gave its basis file: mode, owners, time and attributes."""
        scope = self._scope
        name = path.rpartition(b"/")[2]
        is_owned = (there.st_uid, there.st_gid) == (basis.st_uid, basis.st_gid)
        if not scope.is_root:
            # Without root a basis file could not be given every owner.
            is_owned = basis.st_gid in (there.st_gid, scope.group)
        is_same_mode = stat.S_IMODE(there.st_mode) == stat.S_IMODE(basis.st_mode)
        has, wanted = scope.attributes(inner, outer, name)
        changes = file_metadata.changes_between(has, wanted, scope.removed_kinds)
        if is_owned and is_same_mode and not changes and there.st_mtime_ns - basis.st_mtime_ns in (0, 1):
            return
        if scope.prepared.basis_files.link_count(there) > len(scope.prepared.basis_files.paths_of(basis.st_ino)):
            # The file has names outside of what is restored, and nobody asked to change those.
            attributes = {key: has[key] for key in has if changes.get(key, b"") is not None} | wanted
            self._replace_by_copy(outer, path, (there, basis), attributes)
            return
        handle = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=outer)
        try:
            if os.fstat(handle).st_ino == there.st_ino:
                failed = file_metadata.apply(
                    f"/proc/self/fd/{handle}",
                    basis,
                    wanted,
                    has=has,
                    removed=scope.removed_kinds,
                    sets_owner=not is_owned,
                )
                scope.report_failed(path, failed)
        finally:
            os.close(handle)

    def _replace_by_copy(
        self, outer: int, path: bytes, statuses: tuple[os.stat_result, os.stat_result], attributes: dict[str, bytes]
    ) -> None:
        """Turn all restored names of a file into names of a copy. ``path`` is one of these names.

        ``statuses`` are those of the file in the target and of its basis file.
        """
        scope = self._scope
        there, basis = statuses
        name = path.rpartition(b"/")[2]
        source = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=outer)
        try:
            if not os.path.samestat(os.fstat(source), there):
                return
            with scope.prepared.staging.scratch_name() as (scratch, scratch_name):
                scope.report_failed(path, copy_file(source, scratch, scratch_name, basis, attributes))
                os.rename(scratch_name, name, src_dir_fd=scratch, dst_dir_fd=outer)
        finally:
            os.close(source)
        for other in scope.prepared.basis_files.paths_of(basis.st_ino):
            above, last = split(other)
            with directory_tree.opened_directory(scope.target, above) as directory:
                found = status_of(directory, last)
                if found is not None and os.path.samestat(found, there):
                    with scope.prepared.staging.scratch_name() as (scratch, scratch_name):
                        os.link(name, scratch_name, src_dir_fd=outer, dst_dir_fd=scratch, follow_symlinks=False)
                        os.rename(scratch_name, last, src_dir_fd=scratch, dst_dir_fd=directory)
