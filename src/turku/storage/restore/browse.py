"""A machine looks at history: rows out of the view that it was given, one a line."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from turku.core.log import one_line
from turku.errors import InvalidValue, NotInHistory
from turku.policy import names
from turku.protocol.jsonlines import JsonLines
from turku.protocol.restore_messages import (
    REMARK_LIMIT,
    REMARKS_LIMIT,
    BrowseEnd,
    BrowseRequest,
    FileRow,
    path_bytes,
)
from turku.storage.catalog import Catalog
from turku.storage.catalog.scan import SnapshotReader
from turku.storage.restore import history_rows, recorded_entries, snapshot_lookup
from turku.storage.restore.history_view import HistoryView

_ROWS_AT_ONCE = 500


def show(view: HistoryView, request: BrowseRequest, answers: JsonLines) -> None:
    """Send what is asked for. Raises NotInHistory, InvalidValue, CatalogUnusable."""
    if request.listing == "snapshots":
        _send(view.snapshots(), BrowseEnd(), request.limit, answers)
        return
    path = names.path_inside(path_bytes(request.path))
    if request.listing == "ls" and not (kept := view.choose(request.snapshot)).is_snapshot:
        # No catalog has it.
        with SnapshotReader(kept.path) as tree:
            rows_of_tree = (
                history_rows.of_entry(entry)
                for entry in recorded_entries.in_tree(tree, path, is_recursive=request.is_recursive)
                if view.scope.has_path(entry.path)
            )
            _send(rows_of_tree, BrowseEnd(snapshot=kept.name), request.limit, answers)
        return
    with view.catalog() as opened:
        end = BrowseEnd()
        if request.listing == "versions":
            rows: Iterable[Any] = _history(opened, path)
        elif request.listing == "find":
            rows = _find(view, opened, request)
        else:
            kept = view.choose(request.snapshot)
            chosen = kept.name
            remarks = [one_line(remark)[:REMARK_LIMIT] for remark in kept.remarks][:REMARKS_LIMIT]
            if request.listing == "ls":
                end = BrowseEnd(snapshot=chosen, remarks=remarks)
                rows = history_rows.of_directory(opened, chosen, path, is_recursive=request.is_recursive)
            else:
                other = view.choose(request.other).name
                end = BrowseEnd(snapshot=chosen, other=other, remarks=remarks)
                rows = map(history_rows.of_difference, opened.diff(chosen, other))
        _send(rows, end, request.limit, answers)


def _send(rows: Iterable[Any], end: BrowseEnd, limit: int, answers: JsonLines) -> None:
    remaining = iter(rows)
    limited = itertools.islice(remaining, limit)
    while batch := list(itertools.islice(limited, _ROWS_AT_ONCE)):
        answers.send_many(batch)
    is_cut = next(remaining, None) is not None
    answers.send(msgspec.structs.replace(end, is_cut=is_cut))


def _history(opened: Catalog, path: bytes) -> Iterator[FileRow]:
    if not path:
        raise InvalidValue("the source itself has no history of versions", hint="turku-agent snapshots shows its own")
    found = opened.history(path)
    if not found:
        raise NotInHistory(
            f"{snapshot_lookup.shown(path)} was in no snapshot that is kept",
            hint="turku-agent find searches all of them",
        )
    yield from map(history_rows.of_entry, found)


def _find(view: HistoryView, opened: Catalog, request: BrowseRequest) -> Iterator[FileRow]:
    choice = request.snapshot
    snapshot = None
    if choice.name is not None or choice.at is not None:
        snapshot = view.choose(choice).name
    pattern = path_bytes(request.pattern)
    if not pattern:
        raise InvalidValue("the pattern is empty")
    return map(history_rows.of_entry, opened.find(pattern, snapshot=snapshot, ignore_case=request.ignores_case))
