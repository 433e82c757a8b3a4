"""The part of a history that a reader may see. Nothing else exists for that reader."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Scope:
    """The snapshots and paths that exist for a reader."""

    snapshot: str | None = None
    """The name of the only snapshot, or None for all snapshots."""
    paths: frozenset[bytes] = frozenset()
    """The only paths, with everything below them, or empty for all paths."""

    def has_snapshot(self, name: str) -> bool:
        """Return True if the snapshot is in scope."""
        return self.snapshot is None or name == self.snapshot

    def has_path(self, path: bytes) -> bool:
        """Return True if the path is in scope. The source itself is in scope only if all paths are."""
        if not self.paths:
            return True
        while path and path not in self.paths:
            path = path.rpartition(b"/")[0]
        return bool(path)


WHOLE = Scope()
