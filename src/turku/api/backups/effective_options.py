"""What storages are told to keep: the machine's rules, those it had before a held-back change, the operator's floor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from turku.api.backups import source_changes
from turku.api.backups.models import Source, SourceChange
from turku.api.fleet import policies
from turku.api.fleet.models import Machine
from turku.api.fleet.policies import Floor
from turku.policy import floor, snapshot_mode
from turku.policy.weakening import Weakening


@dataclass(frozen=True)
class EffectiveOptions:
    """How a source's history is kept."""

    retention: str
    snapshot_mode: str | None


class OptionResolver:
    """The protection of sources of one machine, asked of the database in two queries."""

    def __init__(self, machine: Machine, sources: Sequence[Source], *, now: datetime) -> None:
        self.floor = policies.floor_of(machine) if sources else policies.BUILT_IN
        held_back = source_changes.held_back(sources, now=now) if sources else ()
        self._held_back = {change.source_id: change for change in held_back}

    def resolve(self, source: Source) -> EffectiveOptions:
        """The protection of one of the sources."""
        change = self._held_back.get(source.pk)
        return EffectiveOptions(
            retention=effective_retention(source, change, self.floor),
            snapshot_mode=effective_mode(source, change, self.floor),
        )


def effective_retention(source: Source, change: SourceChange | None, limits: Floor) -> str:
    """Return the rules to send. Storages of the existing system know no floor, but they keep what any rule keeps."""
    if change is None and not limits.retention_floor:
        return source.retention
    rules = [floor.effective(source.retention, limits.retention_floor, parse=floor.parse_or_keep_all)]
    if change is not None:
        rules.append(floor.parse_or_keep_all(change.old["retention"]))
        if any(Weakening(name).ages_history for name in change.weakenings):
            rules.append(floor.KEEP_ALL)
    return floor.widest(*rules).text


def effective_mode(source: Source, change: SourceChange | None, limits: Floor) -> str | None:
    """The mode to send; None leaves it to the storage."""
    wanted = source.resulting_mode
    if change is not None and Weakening.SNAPSHOT_MODE in change.weakenings:
        wanted = change.old["snapshot_mode"]
        if wanted in ("", snapshot_mode.AUTO):
            # Left to the storage, it might be what is held back.
            wanted = snapshot_mode.DEFAULT
    if wanted and not limits.allows(wanted):
        wanted = _allowed_mode(limits, has_large_files=source.has_large_files)
    # A mode that follows from large_* alone is left to follow from them.
    return source.snapshot_mode or None if wanted == source.resulting_mode else wanted


def _allowed_mode(limits: Floor, *, has_large_files: bool) -> str:
    """The mode in place of one that the operator does not allow."""
    # A storage takes what is allowed from the order: where its file system shares blocks, large files keep history.
    if has_large_files and limits.allows(snapshot_mode.AUTO):
        return snapshot_mode.AUTO
    return snapshot_mode.DEFAULT if limits.allows(snapshot_mode.DEFAULT) else limits.allowed_snapshot_modes[0]
