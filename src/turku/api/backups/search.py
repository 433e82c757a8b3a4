"""What a word of a search finds among sources and runs."""

from __future__ import annotations

from typing import Any

from django.db.models import Model, Q, QuerySet

from turku.api.backups.models import Source
from turku.api.fleet.models import Machine
from turku.api.fleet.search import matching_machines, uuid_of

_FEW = 1000


def matching_sources(word: str) -> Q:
    """The sources with the word in name, path or comment, those of the machines it finds, and the one of that UUID."""
    machines = Machine.objects.filter(matching_machines(word)).order_by()
    uuid = uuid_of(word)
    if uuid is not None:
        return Q(pk=uuid) | Q(machine__in=few_keys(machines))
    return Q(search_text__contains=word.lower()) | Q(machine__in=machines.values("pk"))


def matching_runs(word: str) -> Q:
    """The runs of the sources that the word finds, and those that made the snapshot of that name."""
    sources = Source.objects.filter(matching_sources(word)).order_by()
    return Q(source__in=few_keys(sources)) | Q(snapshot=word)


def few_keys(rows: QuerySet[Any, Any]) -> list[Any] | QuerySet[Model, Any]:
    """Their primary keys where they are few, so that the database knows that; else a query for them."""
    keys = list(rows.values_list("pk", flat=True)[: _FEW + 1])
    return keys if len(keys) <= _FEW else rows.values("pk")
