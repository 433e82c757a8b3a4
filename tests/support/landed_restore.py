"""A restore without its network: what somebody brings into the staging directory, and how it is moved to its place.

landed = LandedRestore(agent, target, paths=(b"docs",))
landed.bring(lambda tree: ...)      whatever a storage, or code of its choice in rsync, does there
landed.place()
"""

import os
from collections.abc import Callable, Collection
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from turku.agent.config.model import AgentConfig
from turku.agent.restore.placement.placement import Placement
from turku.agent.restore.staging import target as targets
from turku.agent.restore.staging.basis_files import BasisFiles, BasisFileWriter
from turku.agent.restore.staging.staging_directory import StagingDirectory
from turku.agent.restore.staging.target import PreparedTarget
from turku.core import command
from turku.core.filesystem.spool import BloomFilter
from turku.protocol.restore_messages import Overwrite, Settable

TEMPORARY_NAME = ".turku-restore-" + 32 * "0"
TEMPORARY = TEMPORARY_NAME.encode()
PARTIAL = TEMPORARY + b"-partial"


class LandedRestore:
    """A restore that is open, as a context manager."""

    def __init__(
        self,
        agent: AgentConfig,
        target: Path,
        *,
        paths: tuple[bytes, ...] = (),
        overwrite: Overwrite = "always",
        delete: bool = False,
        differing: tuple[bytes, ...] = (),
        order: str = "order",
        kinds: Collection[Settable] = (),
    ) -> None:
        self.target = target
        self.paths = paths
        self._overwrite = overwrite
        self._delete = delete
        self._kinds = kinds
        self._stack = ExitStack()
        self._descriptor = self._stack.enter_context(targets.locked(target))
        self.staging = self._stack.enter_context(StagingDirectory.opened(agent, self._descriptor, target, order))
        self.tree = target / os.fsdecode(self.staging.name) / "tree"
        self.basis_files = BasisFiles()
        self._stack.callback(self.basis_files.close)
        if not (self.tree / os.fsdecode(TEMPORARY)).exists():
            os.mkdir(TEMPORARY, 0o700, dir_fd=self.staging.tree)
        BasisFileWriter(
            self.basis_files,
            self._descriptor,
            self.staging.tree,
            self.staging.name,
            shows_all=overwrite == "never" or delete,
            differing=differing,
            kinds=kinds,
            before_first=lambda: self.staging.record_basis_files(are_there=True),
        ).create(paths)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def rsync(self, snapshot: Path, *options: str) -> str:
        """Let rsync bring what a storage would push of the snapshot, and return its output."""
        return rsync(snapshot, self.tree, *options, paths=self.paths, overwrite=self._overwrite, delete=self._delete)

    def place(
        self, *, is_whole: bool = True, is_named: Callable[[bytes], bool] | None = None, **keys: Any
    ) -> Placement:
        """Move what arrived. By default the manifest names everything that is there."""
        placement = Placement(
            PreparedTarget(
                self._descriptor, self.staging, self.basis_files, TEMPORARY, PARTIAL, frozenset(self._kinds)
            ),
            is_in_manifest=is_named or self._all_that_is_there(),
            overwrite=self._overwrite,
            delete=self._delete,
            is_complete=is_whole,
            recorded_kinds=self._kinds,
        )
        placement.run(self.paths, keys.get("parents", ()))
        if is_whole:
            self.staging.remove()
        return placement

    def _all_that_is_there(self) -> Callable[[bytes], bool]:
        named = BloomFilter()
        paths = command.run(
            ["find", self.tree, "-printf", "%P\\0"], timeout_seconds=60, capture_limit_bytes=2**30
        ).stdout
        for path in paths.split(b"\0"):
            named.add(path)
        return named.__contains__


def rsync(snapshot: Path, to: Path, *options: str, paths: tuple[bytes, ...], overwrite: Overwrite, delete: bool) -> str:
    """Bring a snapshot as a storage's rsync does."""
    return command.run(
        [
            *("rsync", "-a", "-ii", "--numeric-ids", "--modify-window=-1"),
            *{"never": ["--ignore-existing"], "older": ["--update"], "always": []}[overwrite],
            *(["--delete-delay"] if delete else []),
            *(
                f"--temp-dir={TEMPORARY_NAME}",
                f"--partial-dir={os.fsdecode(PARTIAL)}",
                f"--filter=- /{TEMPORARY_NAME}/",
            ),
            *(["--relative", "--no-implied-dirs"] if paths else []),
            *options,
            "--",
            *(os.fsdecode(b"./" + path) for path in paths or (b"",)),
            f"{to}/",
        ],
        timeout_seconds=120,
        working_directory=snapshot,
        capture_limit_bytes=64 * 1024 * 1024,
    ).stdout.decode("utf-8", "replace")
