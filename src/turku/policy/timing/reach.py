"""The time that retention rules reach back, for history that no further backup prunes."""

from datetime import timedelta

from turku.policy.retention import LastDays, LastSnapshots, Retention

_UNIT_DAYS = {"day": 1, "week": 7, "month": 31}
LONGEST = timedelta(days=3660)


def reach(rules: Retention, period: timedelta) -> timedelta:
    """Return the age up to which the rules keep a snapshot, of a source with this period of its schedule."""
    spans = [timedelta()]
    for rule in rules.rules:
        if isinstance(rule, LastDays):
            spans.append(timedelta(days=min(rule.number, LONGEST.days)))
        elif isinstance(rule, LastSnapshots):
            spans.append(min(rule.number, LONGEST.days * 24) * min(period, timedelta(days=31)))
        else:
            spans.append(timedelta(days=min(rule.number * _UNIT_DAYS[rule.unit], LONGEST.days)))
    return min(max(spans), LONGEST)
