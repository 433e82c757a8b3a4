"""The retention floor: rules that keep snapshots whatever a machine asks for, united with the machine's own rules.

The coordinator unites them for every storage, those of the existing system included. A storage of ours unites them
again with its own floor, because a coordinator may be compromised (threats C4).
"""

from collections.abc import Callable

from turku.errors import InvalidValue
from turku.policy import retention
from turku.policy.retention import EarliestOf, LastDays, Retention, RetentionRule

KEEP_ALL = Retention((LastDays(retention.LARGEST_NUMBER),))
_DAYS_OF = {"day": 1, "week": 7, "month": 31}


def effective(own: str, *floors: str | None, parse: Callable[[str], Retention] = retention.parse) -> Retention:
    """Return the rules that keep what the source's own rules or any of the floors keep.

    An empty floor keeps nothing. Raises what ``parse`` raises, by default InvalidValue for rules that are not valid.
    """
    texts = (own, *(floor for floor in floors if floor))
    return Retention(tuple(dict.fromkeys(rule for text in texts for rule in parse(text).rules)))


def parse_or_keep_all(text: str) -> Retention:
    """Return the retention, or KEEP_ALL where it is not valid: invalid rules delete nothing."""
    try:
        return retention.parse(text)
    except InvalidValue:
        return KEEP_ALL


def widest(*retentions: Retention) -> Retention:
    """Return rules that keep exactly what any of these keeps, with one rule of each shape: that of the largest number.

    Storages of the existing system, too, keep what any rule keeps.
    """
    largest: dict[tuple[type[RetentionRule], str], RetentionRule] = {}
    for rule in (rule for each in retentions for rule in each.rules):
        shape = (type(rule), rule.unit if isinstance(rule, EarliestOf) else "")
        if shape not in largest or rule.number > largest[shape].number:
            largest[shape] = rule
    return Retention(tuple(largest.values()))


def keeps_as_much(old: Retention, new: Retention) -> bool:
    """Return True when each snapshot that a rule of ``old`` keeps is provably kept by one of ``new``."""
    return all(any(_covers(rule, other) for rule in new.rules) for other in old.rules)


def _covers(rule: RetentionRule, other: RetentionRule) -> bool:
    if isinstance(rule, LastDays) and isinstance(other, EarliestOf):
        # A day more than the longest its periods can be, for the one that began today and for clocks put back.
        return rule.number > other.number * _DAYS_OF[other.unit]
    return widest(Retention((rule,)), Retention((other,))) == Retention((rule,))
