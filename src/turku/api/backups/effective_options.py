"""The retention and snapshot mode that storages apply to a source.

They combine the machine's options, those before a held-back change, and the operator's policy.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from turku.api.backups import source_changes
from turku.api.backups.models import Source, SourceChange
from turku.api.fleet import policies
from turku.api.fleet.models import Machine
from turku.api.fleet.policies import Floor
from turku.policy import floor, snapshot_mode
from turku.policy.declaration.weakening import Weakening


@dataclass(frozen=True)
class EffectiveOptions:
    """The options by which a storage keeps the history of a source."""

    retention: str
    snapshot_mode: str | None


class OptionResolver:
    """The protection of sources of one machine, asked of the database in two queries."""

    def __init__(self, machine: Machine, sources: Sequence[Source], *, now: datetime) -> None:
        self.floor = policies.floor_of(machine) if sources else Floor()
        held_back = source_changes.held_back(sources, now=now) if sources else ()
        self._held_back = {change.source_id: change for change in held_back}

    def resolve(self, source: Source) -> EffectiveOptions:
        """Return the effective options of one of the sources."""
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
    """Return the snapshot mode to send, or None to leave the choice to the storage."""
    wanted = source.resulting_mode
    if change is not None and Weakening.SNAPSHOT_MODE in change.weakenings:
        wanted = change.old["snapshot_mode"]
        if wanted in ("", snapshot_mode.AUTO):
            # The storage's own choice might be the mode that is held back.
            wanted = snapshot_mode.DEFAULT
    if wanted and not limits.allows(wanted):
        wanted = _allowed_mode(limits, has_large_files=source.has_large_files)
    # A mode that follows from the large_* options alone is not sent.
    return source.snapshot_mode or None if wanted == source.resulting_mode else wanted


def _allowed_mode(limits: Floor, *, has_large_files: bool) -> str:
    """Return the mode that replaces one that the operator does not allow."""
    # The storage knows the allowed modes. If its file system shares blocks, large files keep history.
    if has_large_files and limits.allows(snapshot_mode.AUTO):
        return snapshot_mode.AUTO
    return snapshot_mode.DEFAULT if limits.allows(snapshot_mode.DEFAULT) else limits.allowed_snapshot_modes[0]
