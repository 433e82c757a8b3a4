"""Retention, after each success: which snapshots go is policy's to say, and how they go the mode's."""

from __future__ import annotations

import logging
from datetime import datetime, tzinfo

from turku.errors import PolicyError
from turku.policy import retention
from turku.storage import history
from turku.storage.snapshots import SnapshotMode

_LOG = logging.getLogger(__name__)


def prune(mode: SnapshotMode, rules: str, *, now: datetime, zone: tzinfo, newest_name: str) -> tuple[str, ...]:
    """The names of the snapshots that left history; rules that are not understood delete nothing.

    ``newest_name`` is the snapshot just made: a clock that had gone wrong before does not make it go.
    Their space is not yet free (``SnapshotMode.sweep``).
    """
    place = mode.place
    try:
        parsed = retention.parse(rules)
    except PolicyError as error:
        _LOG.warning("%s: retention %r: %s; no snapshot is deleted", place.source, rules, error)
        return ()
    decisions = retention.decide(
        [
            retention.Snapshot(name=stored.name, moment=stored.moment, is_held=stored.is_held)
            for stored in history.stored_snapshots(place, zone)
        ],
        parsed,
        now=now,
        zone=zone,
    )
    gone = [
        decision.snapshot.name for decision in decisions if not decision.kept and decision.snapshot.name != newest_name
    ]
    for name in gone:
        mode.discard(name)
    if gone:
        _LOG.info("%s: retention removes %s", place.source, ", ".join(gone))
    return tuple(gone)
