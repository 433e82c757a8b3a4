"""Which snapshot a person means: by name, the latest, or as it was at a time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, tzinfo
from typing import Protocol

from turku.core.log import one_line
from turku.errors import NotInHistory, UsageError
from turku.policy import moments

LATEST = "latest"


class Dated(Protocol):
    """A snapshot, as far as choosing goes."""

    @property
    def name(self) -> str: ...

    @property
    def moment(self) -> datetime | None: ...


def choose(
    snapshots: Sequence[Dated], *, name: str | None = None, at: str | None = None, now: datetime, zone: tzinfo
) -> str:
    """The name of the snapshot: ``name`` (or ``latest``), else the newest made at or before ``at``, else the newest.

    ``snapshots`` are oldest first. Raises NotInHistory where there is none such, PolicyError for an ``at`` that is not
    understood, UsageError for both at once.
    """
    if name and at:
        raise UsageError("a snapshot is chosen by its name or by a time, not by both")
    if not snapshots:
        raise NotInHistory("there is no snapshot yet")
    if at:
        moment = moments.parse(at, now=now, zone=zone)
        for snapshot in reversed(snapshots):
            if snapshot.moment is not None and snapshot.moment <= moment:
                return snapshot.name
        raise NotInHistory(
            f"no snapshot was made before {moment.astimezone(zone):%Y-%m-%d %H:%M:%S}",
            hint=f"the oldest is {snapshots[0].name}",
        )
    if not name or name == LATEST:
        return snapshots[-1].name
    if all(snapshot.name != name for snapshot in snapshots):
        raise NotInHistory(f"there is no snapshot {one_line(name)}", hint=f"the newest is {snapshots[-1].name}")
    return name
