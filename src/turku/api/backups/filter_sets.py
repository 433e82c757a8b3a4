"""The filter sets that rules may name, read at most once per call."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from turku.api.fleet.models import FilterSet
from turku.errors import InvalidValue
from turku.policy import filters
from turku.policy.source_options import TOGETHER_LIMIT, texts

# The rules of a set count for each source that names it.
_TOO_MANY = f"the sources have more than {TOGETHER_LIMIT} filter rules together, filter sets included"


class FilterSets:
    """All active filter sets, asked for when the first rule names one."""

    def __init__(self) -> None:
        self._checked = 0

    @cached_property
    def _rules(self) -> dict[str, list[str]]:
        return dict(FilterSet.objects.filter(active=True).values_list("name", "rules"))

    def _find(self, name: str) -> Sequence[str] | None:
        return self._rules.get(name)

    def expand(self, rules: Sequence[str]) -> list[str]:
        """Return the rules with named sets replaced by their rules (contract, "Calls"). Raises InvalidValue."""
        return filters.expand(rules, self._find) if rules else []

    def check(self, value: Any) -> list[str]:
        """Return the rules unchanged if they expand and all checked rules together are within the limit.

        One short rule in each of a thousand sources may name a set of thousands. Raises InvalidValue.
        """
        rules = texts(value)
        if self._checked > TOGETHER_LIMIT:
            raise InvalidValue(_TOO_MANY)
        self._checked += len(self.expand(rules))
        if self._checked > TOGETHER_LIMIT:
            raise InvalidValue(_TOO_MANY)
        return rules
