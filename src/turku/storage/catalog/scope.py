"""What of a history a reader may know of. Everything else does not exist for that reader."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Scope:
    """The snapshots and the paths that there are for a reader."""

    snapshot: str | None = None
    """The name of the only snapshot; None for all snapshots."""
    paths: frozenset[bytes] = frozenset()
    """The only paths, with everything below them; empty for all paths."""

    def has_snapshot(self, name: str) -> bool:
        """Return True when the snapshot is one of these."""
        return self.snapshot is None or name == self.snapshot

    def has_path(self, path: bytes) -> bool:
        """Return True when the path is one of these or below one of them. The source itself is in the widest alone."""
        if not self.paths:
            return True
        while path and path not in self.paths:
            path = path.rpartition(b"/")[0]
        return bool(path)


WHOLE = Scope()
