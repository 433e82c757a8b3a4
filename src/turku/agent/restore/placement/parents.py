"""Directories above a restored path: opened in the target, and created where they are missing."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from contextlib import suppress

from turku.agent.restore.placement.scope import PlacementScope
from turku.core.filesystem import directory_tree, posix_acl
from turku.core.filesystem.paths import joined
from turku.errors import InvalidValue
from turku.policy import names
from turku.protocol.restore_messages import ParentDirectory, path_bytes


class ParentDirectories:
    """The directories above the restored paths, as the storage described them."""

    def __init__(self, scope: PlacementScope, described: Iterable[ParentDirectory]) -> None:
        self._scope = scope
        self._described: dict[bytes, ParentDirectory] = {}
        self._created: list[tuple[bytes, ParentDirectory]] = []
        for parent in described:
            with suppress(InvalidValue):
                self._described[names.path_inside(path_bytes(parent.path))] = parent

    def open(self, path: bytes) -> int:
        """Open a directory of the target, and create it and those above it where they are missing. Raises OSError."""
        descriptor = directory_tree.open_directory(self._scope.target, b"")
        done = b""
        for part in path.split(b"/") if path else ():
            done = joined(done, part)
            try:
                try:
                    inner = directory_tree.open_directory(descriptor, part)
                except FileNotFoundError:
                    os.mkdir(part, 0o700, dir_fd=descriptor)
                    inner = directory_tree.open_directory(descriptor, part)
                    posix_acl.clear(inner)
                    if (parent := self._described.get(done)) is not None:
                        self._created.append((done, parent))
            finally:
                os.close(descriptor)
            descriptor = inner
        return descriptor

    def finish(self) -> None:
        """Give the created directories their owners, modes and times. Call this after everything was placed."""
        for path, parent in reversed(self._created):
            with suppress(OSError):
                with directory_tree.opened_directory(self._scope.target, path) as descriptor:
                    if self._scope.is_root:
                        os.fchown(descriptor, parent.uid, parent.gid)
                    os.fchmod(descriptor, stat.S_IMODE(parent.mode))
                    os.utime(descriptor, ns=(parent.modified_ns, parent.modified_ns))
                if parent.has_acl:
                    self._scope.problems.add(
                        path, "was created without its ACL, because only paths below it are restored"
                    )
