"""The choice of a snapshot: by name, the latest, or the state at a time."""

from collections.abc import Sequence
from datetime import datetime, tzinfo

from turku.core.log import one_line
from turku.errors import NotInHistory, UsageError
from turku.policy.timing import moments
from turku.storage.disk import history
from turku.storage.disk.history import Dated

LATEST = "latest"
_NAMED = 5


def choose(
    snapshots: Sequence[Dated], *, name: str | None = None, at: str | None = None, now: datetime, zone: tzinfo
) -> str:
    """Return the name of the chosen snapshot.

    It is ``name``, the only one with ``name`` in its own, ``latest``, or the newest one made at or before ``at``, or
    else the newest. A snapshot whose date is in doubt is the newest only if all dates are. ``snapshots`` are given
    oldest first. Raises NotInHistory if no snapshot or several fit, InvalidValue for an ``at`` that is not understood,
    UsageError for both at once.
    """
    if name and at:
        raise UsageError("a snapshot is chosen by its name or by a time, not by both")
    if not snapshots:
        raise NotInHistory("there is no snapshot yet")
    if at:
        moment = moments.parse(at, now=now, zone=zone)
        made = [(each.moment, number) for number, each in enumerate(snapshots) if each.moment and each.moment <= moment]
        if made:
            return snapshots[max(made)[1]].name
        raise NotInHistory(
            f"no snapshot was made before {moment.astimezone(zone):%Y-%m-%d %H:%M:%S}",
            hint=f"the oldest is {snapshots[0].name}",
        )
    latest = history.latest_last(snapshots, now=now)[-1].name
    if not name or name == LATEST:
        return latest
    known = [each.name for each in snapshots]
    fitting = [name] if name in known else [each for each in known if name in each]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        more = f" and {len(fitting) - _NAMED} more" if len(fitting) > _NAMED else ""
        raise NotInHistory(f"{len(fitting)} snapshots fit {one_line(name)}: {', '.join(fitting[:_NAMED])}{more}")
    raise NotInHistory(
        f"there is no snapshot {one_line(name)}", hint=f"'snapshots' shows which there are; the newest is {latest}"
    )
