"""A machine looks at history: rows out of the catalog, one a line."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

from turku.core.clock import Clock
from turku.errors import NotInHistory, PolicyError
from turku.policy import names
from turku.protocol.restore_messages import FileRow, LookEnd, LookRequest, path_bytes
from turku.storage import catalog, history_rows, kept_tree
from turku.storage.answers import Answers
from turku.storage.catalog import Catalog
from turku.storage.configuration import Storage
from turku.storage.permit import Permitted
from turku.storage.snapshots.place import SourcePlace

_ROWS_AT_ONCE = 500


def show(configuration: Storage, permitted: Permitted, request: LookRequest, answers: Answers, *, clock: Clock) -> None:
    """Send what is asked for. Raises NotInHistory, PolicyError, CatalogUnusable, NoVolume."""
    place = kept_tree.place_of(configuration, permitted)
    if request.what == "snapshots":
        rows: Iterable[Any] = history_rows.of_snapshots(place, configuration.zone)
        _send(rows, LookEnd(), request.limit, answers)
        return
    path = names.path_inside(path_bytes(request.path))
    with catalog.open_catalog(place, zone=configuration.zone) as opened:
        if request.what in ("files", "history"):
            permitted.require_path(path)
        elif permitted.paths:
            raise NotInHistory("the coordinator's permission is for some paths of this source only")
        end = LookEnd()
        if request.what == "history":
            rows = _history(opened, path)
        elif request.what == "find":
            rows = _find(configuration, place, opened, request, clock)
        else:
            permitted.require_snapshot(request.snapshot)
            chosen = kept_tree.choose(configuration, place, request.snapshot, clock=clock).name
            end = LookEnd(snapshot=chosen)
            if request.what == "files":
                rows = history_rows.of_directory(opened, chosen, path, is_recursive=request.is_recursive)
            else:
                other = kept_tree.choose(configuration, place, request.other, clock=clock).name
                end = LookEnd(snapshot=chosen, other=other)
                rows = map(history_rows.of_difference, opened.diff(chosen, other))
        _send(rows, end, request.limit, answers)


def _send(rows: Iterable[Any], end: LookEnd, limit: int, answers: Answers) -> None:
    remaining = iter(rows)
    limited = itertools.islice(remaining, limit)
    while batch := list(itertools.islice(limited, _ROWS_AT_ONCE)):
        answers.send_many(batch)
    is_cut = next(remaining, None) is not None
    answers.send(LookEnd(is_cut=is_cut, snapshot=end.snapshot, other=end.other))


def _history(opened: Catalog, path: bytes) -> Iterator[FileRow]:
    if not path:
        raise PolicyError("the source itself has no history of versions", hint="turku-agent snapshots shows its own")
    found = opened.history(path)
    if not found:
        raise NotInHistory(
            f"{kept_tree.shown(path)} was in no snapshot that is kept", hint="turku-agent find searches all of them"
        )
    yield from map(history_rows.of_entry, found)


def _find(
    configuration: Storage, place: SourcePlace, opened: Catalog, request: LookRequest, clock: Clock
) -> Iterator[FileRow]:
    choice = request.snapshot
    snapshot = None
    if choice.name is not None or choice.at is not None:
        snapshot = kept_tree.choose(configuration, place, choice, clock=clock).name
    pattern = path_bytes(request.pattern)
    if not pattern:
        raise PolicyError("the pattern is empty")
    return map(history_rows.of_entry, opened.find(pattern, snapshot=snapshot, ignore_case=request.ignores_case))
