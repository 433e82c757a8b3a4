"""The comparison of two clocks, and the detection of impossible dates."""

from datetime import datetime, timedelta

from turku.core import units

TOLERANCE = timedelta(minutes=5)
"""Most by which clocks that agree may differ. Messages take time, and clocks are corrected by seconds."""
COORDINATORS_TOLERANCE = timedelta(minutes=10)
"""Most by which the clocks of coordinators may differ. A later moment comes from a wrong clock."""


def is_ahead(moment: datetime | None, *, now: datetime) -> bool:
    """Return True when the moment lies further in the future than clocks that agree can differ."""
    return moment is not None and moment - now > TOLERANCE


def disagreement(own: datetime, other: datetime, *, whose: str) -> str:
    """Return a clause about the difference of the own clock from the ``other`` one. Empty if they agree.

    ``whose`` names the owner of the other clock, such as ``the coordinator``.
    """
    difference = own - other
    if abs(difference) <= TOLERANCE:
        return ""
    direction = "ahead of" if difference > timedelta(0) else "behind"
    minutes = timedelta(minutes=round(abs(difference).total_seconds() / 60))
    return f"{units.rough_duration(minutes)} {direction} the clock of {whose}"
