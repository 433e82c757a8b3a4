"""Search for sources and backup runs.

A word that finds few machines or sources is looked up in steps, each by an index or a scan of one column. A word that
finds many is left to one statement, because a page is soon full of its results.
"""

from collections.abc import Sequence

from django.db.models import Q

from turku.api.backups.models import Source
from turku.api.fleet.search import FEW_LIMIT, few_machines, matching_machines, uuid_of


def matching_sources(words: Sequence[str], path: str = "") -> Q:
    """Return a condition that finds sources by every word: in name, path or comment, or in those of their machine.

    A word may be a UUID. ``path`` leads from the searched rows to their source (``source__``).
    """
    return Q(*(_matching_sources(word, path) for word in words))


def _matching_sources(word: str, path: str) -> Q:
    keys = few_machines(word, "pk")
    of_machines = matching_machines([word], f"{path}machine__") if keys is None else Q(**{f"{path}machine__in": keys})
    uuid = uuid_of(word)
    if uuid is not None:
        return Q(**{f"{path}pk": uuid}) | of_machines
    return Q(**{f"{path}search_text__contains": word.lower()}) | of_machines


def matching_runs(words: Sequence[str]) -> Q:
    """Return a condition that finds the runs of matching sources and the runs that made a snapshot of that name."""
    sources = Source.objects.filter(matching_sources(words)).order_by().values_list("pk", flat=True)
    keys = list(sources[: FEW_LIMIT + 1])
    of_sources = Q(source__in=keys) if len(keys) <= FEW_LIMIT else matching_sources(words, "source__")
    return of_sources | Q(snapshot__in=words)
